"""Training data out of a teacher's run, stored beside the episodes. Invariant: every played episode is kept, or counted
under the reason why it was not; the same episodes give the same `traces.jsonl`, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cotbench.baselines.data.decodability import has_enough_tasks, measure_decodability
from cotbench.baselines.data.demonstration import (
    TRACES_JSONL,
    TRACES_PARQUET,
    Demonstration,
    from_episode,
    write_jsonl,
    write_parquet,
)
from cotbench.baselines.data.examples import Examples
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.data.token_rows import COLUMNS, TOKENS_JSONL, TOKENS_PARQUET, TokenEncoder, write_tokens
from cotbench.envs.registry import Instructions, env_entry
from cotbench.prompting.elicitation import Message
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.dataset_card import DataConfig, DatasetCard, columns_of, record_columns, split_name, write_card
from cotbench.runs.episode import EPISODES, Episode
from cotbench.runs.folder import FolderKind
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, Manifest, read_manifest
from cotbench.runs.results import Run
from cotbench.stats.decodability import Decodability

TRACES = "traces.json"
TRACES_FOLDER = FolderKind(noun=RUN_FOLDER.noun, writer="cotbench traces", manifest=RUN_FOLDER.manifest)

MOST_SILENT = 0.5
"""An episode is dropped if more than this share of its steps has no trace."""


@dataclass(frozen=True, slots=True)
class KeptEpisodes:
    """Demonstrations of the CoT episodes of a run, and how many episodes gave none, by reason.

    Attributes:
        demonstrations: the successful episodes with traces, in the run's order.
        failed: played to the end without success.
        errors: not played to the end, for a reason outside the teacher.
        without_trace: successful, but with too few traces.
    """

    demonstrations: tuple[Demonstration, ...]
    failed: int
    errors: int
    without_trace: int

    @property
    def episodes(self) -> int:
        """Number of CoT episodes that were played."""
        return len(self.demonstrations) + self.failed + self.errors + self.without_trace

    @property
    def traces(self) -> list[str]:
        """Every trace that is kept."""
        return [trace for one in self.demonstrations for trace in one.traces if trace is not None]

    @property
    def decisions(self) -> int:
        """Number of steps that are kept, with and without a trace."""
        return sum(len(one.actions) for one in self.demonstrations)


class TokensSummary(BaseModel):
    """Numbers of the token ids in a traces folder.

    Attributes:
        model: whose tokenizer and template made them.
        examples: number of rows, one for each decision with a trace.
        too_long: number of decisions that are left out because the model takes no sequence so long.
        tokens: of all rows; `labels` of them are in the loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    examples: int
    too_long: int
    tokens: int
    labels: int

    def text(self) -> str:
        """Return the numbers in a line."""
        long = f" ({self.too_long} more are too long)" if self.too_long else ""
        return f"{self.examples} examples{long} of {self.model}, {self.tokens} tokens, {self.labels} of them in the loss"


def _is_none(value: object) -> bool:
    return value is None


class TracesSummary(BaseModel):
    """Numbers of a traces folder, stored as `traces.json`.

    Attributes:
        traces_sha256: of `traces.jsonl`.
        decisions: number of kept steps; `examples` are those with a trace, which can be trained on.
        mean_trace_words: mean length of these traces in words; None where nothing is kept.
        tasks: the tasks of the kept demonstrations, in their order.
        trace_level: of the traces, where the teacher describes itself so; else left out of JSON.
        decodability: of the traces, where there are enough tasks to measure it; else left out of JSON.
        tokens: of `tokens.jsonl`, where there is one; else left out of JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str
    env: str
    scheme: str
    split: str
    elicitation_fingerprint: str
    traces_sha256: str
    episodes: int
    kept: int
    failed: int
    errors: int
    without_trace: int
    decisions: int
    examples: int
    mean_trace_words: float | None
    tasks: tuple[str, ...]
    trace_level: str | None = Field(None, exclude_if=_is_none)
    decodability: Decodability | None = Field(None, exclude_if=_is_none)
    tokens: TokensSummary | None = Field(None, exclude_if=_is_none)

    def text(self) -> str:
        """Return the numbers in a line."""
        dropped = f"{self.failed} failed, {self.without_trace} without traces, {self.errors} errors"
        line = f"kept {self.kept} of {self.episodes} episodes ({dropped}), {self.decisions} decisions"
        if self.decisions > self.examples:
            line += f" ({self.decisions - self.examples} without a trace)"
        return line if self.mean_trace_words is None else f"{line}, {self.mean_trace_words:.1f} words per trace"


def keep_successes(
    episodes: Sequence[Episode], env: str, teacher: str, instructions: Instructions | None = None
) -> KeptEpisodes:
    """Sort the CoT episodes of a run into demonstrations and reasons why not.

    Args:
        episodes: of any mode; those of mode prompt are skipped.
        env: the environment's name.
        teacher: the spec of the agent that played.
        instructions: those of its prompts; None: the environment's own.
    """
    demonstrations, failed, errors, without_trace = [], 0, 0, 0
    for episode in episodes:
        if episode.mode != "cot":
            continue
        if episode.error is not None:
            errors += 1
        elif not episode.success:
            failed += 1
        elif _silent(episode):
            without_trace += 1
        else:
            demonstrations.append(from_episode(episode, env, teacher, instructions))
    return KeptEpisodes(tuple(demonstrations), failed, errors, without_trace)


def _silent(episode: Episode) -> bool:
    traces = [step.decision.trace for step in episode.trajectory]
    return not traces or sum(not (trace or "").strip() for trace in traces) > MOST_SILENT * len(traces)


def write_traces(outcome: Run, *, parquet: bool = False, encoder: TokenEncoder | None = None) -> TracesSummary:
    """Write `traces.jsonl` and `traces.json` into a finished run's folder, and `traces.parquet` if wanted or there already.

    Token ids of other traces do not stay in the folder.

    Args:
        outcome: the finished run.
        parquet: whether to write `traces.parquet` too.
        encoder: writes `tokens.jsonl` too, and `tokens.parquet` beside `traces.parquet`.

    Raises:
        UsageError: a task is scored, or no example is left for the encoder.
        MissingExtraError: Parquet is wanted, and pyarrow is not installed.
    """
    folder, config = outcome.path, outcome.manifest.config
    instructions = outcome.manifest.entry.instructions()
    own = instructions == env_entry(config.env).instructions()
    successes = keep_successes(outcome.records, config.env, config.agent, None if own else instructions)
    check_trainable(successes.demonstrations)
    examples = None
    if encoder is not None and successes.demonstrations:
        examples = encoder.encode(successes.demonstrations, {config.env: config.elicitation})
    before = _read_summary(folder)
    write_jsonl(folder / TRACES_JSONL, successes.demonstrations)
    if parquet or (folder / TRACES_PARQUET).is_file():  # An old one must not stay beside other episodes.
        write_parquet(folder / TRACES_PARQUET, successes.demonstrations)
    sha256 = _sha256(folder / TRACES_JSONL)
    tokens = before.tokens if before is not None and before.traces_sha256 == sha256 else None
    if encoder is not None or tokens is None:
        for name in (TOKENS_JSONL, TOKENS_PARQUET):
            (folder / name).unlink(missing_ok=True)
    if encoder is not None and examples is not None:
        write_tokens(folder / TOKENS_JSONL, examples.flat)
        if (folder / TRACES_PARQUET).is_file():
            write_tokens(folder / TOKENS_PARQUET, examples.flat)
        tokens = tokens_summary(encoder.model, examples)
    words = [len(trace.split()) for trace in successes.traces]
    summary = TracesSummary(
        teacher=config.agent,
        env=config.env,
        scheme=config.scheme,
        split=config.split,
        elicitation_fingerprint=outcome.manifest.elicitation_fingerprint,
        traces_sha256=sha256,
        episodes=successes.episodes,
        kept=len(successes.demonstrations),
        failed=successes.failed,
        errors=successes.errors,
        without_trace=successes.without_trace,
        decisions=successes.decisions,
        examples=len(words),
        mean_trace_words=round(sum(words) / len(words), 2) if words else None,
        tasks=tuple(one.task for one in successes.demonstrations),
        trace_level=outcome.manifest.agent.get("trace_level"),
        decodability=_decodability(successes.demonstrations, before, sha256),
        tokens=tokens,
    )
    write_card(folder, *traces_card(outcome.manifest, tokens, parquet=(folder / TRACES_PARQUET).is_file()))
    write_atomically(folder / TRACES, [summary.model_dump_json(indent=2) + "\n"])
    return summary


def _decodability(demonstrations: Sequence[Demonstration], before: TracesSummary | None, sha256: str) -> Decodability | None:
    """Return the decodability of traces, or that of the same traces before; None where there are too few tasks."""
    if before is not None and before.traces_sha256 == sha256 and before.decodability is not None:
        return before.decodability
    return measure_decodability(demonstrations) if has_enough_tasks(demonstrations) else None


def tokens_summary(model: str, made: Examples) -> TokensSummary:
    """Return the numbers of some examples.

    Args:
        model: whose tokenizer and template made them.
        made: the examples.
    """
    return TokensSummary(
        model=model,
        examples=len(made.flat),
        too_long=len(made.too_long),
        tokens=sum(len(one.ids) for one in made.flat),
        labels=sum(len(one.answer) for one in made.flat),
    )


def _read_summary(folder: Path) -> TracesSummary | None:
    """Return the summary that was written before; None where there is none that can be read."""
    try:
        return TracesSummary.model_validate_json((folder / TRACES).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def card_of(folder: Path) -> DatasetCard | None:
    """Return the card of a finished traces folder; None where it is none."""
    summary = _read_summary(folder)
    if summary is None:
        return None
    return traces_card(read_manifest(folder), summary.tokens, parquet=(folder / TRACES_PARQUET).is_file())


def traces_card(manifest: Manifest, tokens: TokensSummary | None, *, parquet: bool = False) -> DatasetCard:
    """Return the card of a traces folder: the demonstrations, and the episodes that they were taken from.

    Args:
        manifest: of the teacher's run.
        tokens: the token ids that were written too.
        parquet: whether the demonstrations are there as Parquet too.
    """
    config = manifest.config
    text = (
        f"Demonstrations made with cotbench: successful episodes of `{config.agent}`, which reasons before each action, on "
        f"{config.env} {config.scheme}/{config.split}. One line of `{TRACES_JSONL}` is an episode: `messages` is the whole "
        "chat, the prompt and each answer with its reasoning and its action in tags; the columns beside it are what it is made "
        "of (`observations`, `actions`, and `traces`, null where a step has no reasoning). Messages are rendered by each "
        "model's own chat template, and some rewrite past reasoning: for exact token ids and labels see `cotbench traces "
        f"--tokens MODEL`.{f' `{TRACES_PARQUET}` holds the same.' if parquet else ''}\n\n"
        "All episodes that were played, the unsuccessful ones too, are the table `episodes`; settings and versions are in "
        f"`{MANIFEST}`, the numbers in `{TRACES}`."
    )
    tables = [
        DataConfig("default", {"train": TRACES_JSONL}, {"messages": list[Message], **columns_of(Demonstration)}),
        DataConfig("episodes", {split_name(config.split): EPISODES}, record_columns(Episode, manifest.format)),
    ]
    if tokens is not None:
        text += f" The table `tokens` holds the token ids and labels of each decision for `{tokens.model}`."
        tables.append(DataConfig("tokens", {"train": TOKENS_JSONL}, COLUMNS))
    return DatasetCard(f"Traces of {config.agent} on {config.env}", text, tables)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
