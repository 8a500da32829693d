"""A run in the format in which lm-evaluation-harness stores its results: `results_DATE.json` and, for each mode,
`samples_TASK_DATE.jsonl`. Invariant: a sample is an episode that was played to its end; one that failed is in no sample and no
mean, but counted under `n-samples`.

Source: lm-evaluation-harness 0.4.13: `evaluator.evaluate`, `evaluator_utils.EvalAcc`, `loggers.EvaluationTracker`. Its request
is one prompt with one answer. An episode is stored as one request: its prompt is the first one, its responses are the answers
of all turns, in order (`resps`; `filtered_resps` are the actions).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.prompting.generation import TAG_ALLOWANCE
from cotbench.prompting.parsing import ACTION_CLOSE
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.episode import Episode
from cotbench.runs.results import Run

METRICS = ("success", "score", "steps")
"""Metrics of a sample; of the first two more is better, and of steps nothing is said."""
_FILTER = "none"


def write_eval_results(run: Run, out: Path) -> list[Path]:
    """Write a run's results and samples; those of the same run are replaced.

    Args:
        run: the run, finished or not.
        out: where they go: into a folder named after the agent in it, as lm-evaluation-harness does.

    Returns:
        The files, the results first.
    """
    folder = out / _sanitized(_model_name(run))
    folder.mkdir(parents=True, exist_ok=True)
    date = _created(run).replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    modes = [mode for mode in MODES if mode in run.summary.modes]
    samples = {_task_name(run, mode): list(_samples(run, mode)) for mode in modes}
    results = _results(run, samples, modes)
    paths = [folder / f"results_{date}.json"]
    write_atomically(paths[0], [json.dumps(results, indent=2, ensure_ascii=False)])
    for name, some in samples.items():
        paths.append(folder / f"samples_{name}_{date}.jsonl")
        write_atomically(paths[-1], (f"{json.dumps(one, ensure_ascii=False)}\n" for one in some))
    return paths


def _task_name(run: Run, mode: Mode) -> str:
    config = run.manifest.config
    return re.sub(r"\W", "_", f"cotbench_{config.env}_{config.scheme}_{config.split}_{mode}")


def _samples(run: Run, mode: Mode) -> Iterator[dict[str, Any]]:
    manifest = run.manifest
    place = {task: number for number, task in enumerate(manifest.task_list)}
    for episode in run.records:
        if episode.mode != mode or episode.error is not None:
            continue
        doc = {"task": episode.task, "task_type": episode.task_type, "goal": episode.goal, "rollout": episode.rollout}
        prompt = _first_prompt(run, episode)
        yield {
            "doc_id": place.get(episode.task, len(place)),
            "doc": doc,
            "target": "",
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": _generation_kwargs(run, mode)}},
            "resps": [[step.decision.raw for step in episode.trajectory]],
            "filtered_resps": [[step.action for step in episode.trajectory]],
            "filter": _FILTER,
            "metrics": list(METRICS),
            "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _sha256(prompt),
            "target_hash": _sha256(""),
            "success": float(episode.success),
            "score": episode.score,
            "steps": float(episode.steps),
        }


def _results(run: Run, samples: dict[str, list[dict[str, Any]]], modes: Sequence[Mode]) -> dict[str, Any]:
    manifest = run.manifest
    config, packages = manifest.config, manifest.packages
    names = dict(zip(samples, modes, strict=True))
    source, _, model = config.agent.partition(":")
    return {
        "results": {name: _means(name, some) for name, some in samples.items()},
        "group_subtasks": {},
        "configs": {name: _task_config(run, name, mode) for name, mode in names.items()},
        "versions": {name: packages.get("cotbench", "") for name in names},
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"success": True, "score": True} for name in names},
        "n-samples": {name: {"original": len(manifest.task_list), "effective": len(samples[name])} for name in names},
        "config": {
            "model": source,
            "model_args": model,
            "batch_size": None,
            "batch_sizes": [],
            "device": manifest.agent.get("device"),
            "use_cache": None,
            "limit": config.episodes,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
            "random_seed": config.seed,
            "numpy_seed": config.seed,
            "torch_seed": config.seed,
            "fewshot_seed": config.seed,
        },
        "git_hash": manifest.git_commit,
        "date": _created(run).timestamp(),
        "pretty_env_info": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "transformers_version": packages.get("transformers"),
        "lm_eval_version": None,
        "upper_git_hash": None,
        "task_hashes": {
            name: _sha256("".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in some))
            for name, some in samples.items()
        },
        "model_source": source,
        "model_name": _model_name(run),
        "model_name_sanitized": _sanitized(_model_name(run)),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(round(sum(episode.seconds for episode in run.records), 3)),
        "cotbench": run.summary.model_dump(mode="json"),
    }


def _means(name: str, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "alias": name, "sample_len": len(samples)}
    for metric in METRICS if samples else ():
        values = [one[metric] for one in samples]
        found[f"{metric},{_FILTER}"] = fmean(values)
        # "N/A" is what lm-evaluation-harness writes where there is no standard error.
        found[f"{metric}_stderr,{_FILTER}"] = stdev(values) / len(values) ** 0.5 if len(values) > 1 else "N/A"
    return found


def _task_config(run: Run, name: str, mode: Mode) -> dict[str, Any]:
    manifest = run.manifest
    config = manifest.config
    return {
        "task": name,
        "dataset_path": config.env,
        "dataset_name": config.scheme,
        "test_split": config.split,
        "description": config.elicitation.system_text(Dialogue(manifest.entry.instructions(), ("",)), mode),
        "num_fewshot": 0,
        "metric_list": [
            {"metric": "success", "aggregation": "mean", "higher_is_better": True},
            {"metric": "score", "aggregation": "mean", "higher_is_better": True},
            {"metric": "steps", "aggregation": "mean"},
        ],
        "output_type": "generate_until",
        "generation_kwargs": _generation_kwargs(run, mode),
        "repeats": 1,
        "should_decontaminate": False,
        "metadata": {
            "elicitation": config.elicitation.model_dump(mode="json"),
            "elicitation_fingerprint": manifest.elicitation_fingerprint,
            "data": manifest.data,
            "mode": mode,
            "errors": run.summary.modes[mode].errors,
        },
    }


def _generation_kwargs(run: Run, mode: Mode) -> dict[str, Any]:
    elicitation = run.manifest.config.elicitation
    tokens = elicitation.action_tokens + (elicitation.trace_tokens if mode == "cot" else 0) + TAG_ALLOWANCE
    sampled = elicitation.temperature > 0
    return {"until": [ACTION_CLOSE], "max_gen_toks": tokens, "do_sample": sampled, "temperature": elicitation.temperature}


def _first_prompt(run: Run, episode: Episode) -> str:
    """Return the chat before the first answer, as JSON."""
    manifest = run.manifest
    dialogue = Dialogue(manifest.entry.instructions(), (episode.first_observation,), functions=episode.functions)
    chat = manifest.config.elicitation.messages(dialogue, episode.mode)
    return json.dumps([message._asdict() for message in chat], ensure_ascii=False)


def _model_name(run: Run) -> str:
    spec = run.manifest.config.agent
    return spec.partition(":")[2].partition("?")[0] or spec


def _sanitized(name: str) -> str:
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name).strip(".") or "agent"


def _created(run: Run) -> datetime:
    return datetime.fromisoformat(run.manifest.created)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
