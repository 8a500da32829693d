"""A folder of preference pairs. Invariant: every state that was drawn is in `states.jsonl`, with its pair or the reason why it
has none; `pairs.jsonl` holds the pairs in the order of the data, written last but for its card; work that was killed and
resumed ends with the same pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cotbench.agents.base import Agent, check_elicitation, describe_agent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.data.examples import elicitations_of, make_examples
from cotbench.baselines.data.pair_sampling import SampledState, Sampler, State
from cotbench.baselines.data.pairs_config import PairsConfig
from cotbench.baselines.data.preference_pair import PAIRS_JSONL, PreferencePair, write_pairs
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.data.steps_to_go import Takeover, takeover_of
from cotbench.envs.registry import env_entry
from cotbench.errors import EnvBugError, RunFolderError, UsageError
from cotbench.failure import registered_code
from cotbench.json_text import parse_json
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import derive_seed
from cotbench.runs import line_digest
from cotbench.runs.dataset_card import DataConfig, columns_of, write_card
from cotbench.runs.folder import FolderKind, WritableFolder
from cotbench.runs.jsonl_store import JsonlStore
from cotbench.runs.manifest import agent_identity, provenance

SAMPLING = "sampling.json"
"""File of the options, the data and the agent, written before the first answer is sampled."""

STATES = "states.jsonl"
PAIRS = "pairs.json"
PAIRS_FOLDER = FolderKind(noun="set of pairs", writer="cotbench pairs", manifest=SAMPLING)


_ADVICE = {
    "error": "the agent or the environment failed; ask again with --resume",
    "malformed": "the answers are malformed; sample from a checkpoint that keeps the format",
    "another prompt": "the checkpoint is asked otherwise than the data are encoded; give its elicitation settings",
    "unknown": "of most actions nothing is known, since the teacher's path does not win after them; use more demonstrations",
}
"""Why most states have no pair -> what to do."""


class StatesFile(JsonlStore[SampledState, SampledState]):
    """The states of a folder, as they are sampled."""

    name: ClassVar[str] = STATES
    manifest: ClassVar[str] = SAMPLING
    model: ClassVar[type[Any]] = SampledState
    noun: ClassVar[str] = "a sampled state"


class PairsSummary(BaseModel):
    """Numbers of a folder of pairs, stored as `pairs.json`: its card.

    Attributes:
        agent: the spec whose answers are rejected.
        teachers: whose answers are chosen -> number of pairs.
        elicitations: environment -> fingerprint.
        decisions: number of decisions of the data.
        without_trace: of them, those that have no trace and so no example.
        too_long: of them, those that the model's context does not hold.
        states: number of states that were drawn from the others.
        pairs: number of states with a pair; `identical_traces` of them have the same trace on both sides.
        left_out: why the other states have none -> number of states.
        samples: what the samples of all states are -> number of samples.
        takeover: environment -> who takes over after an action to count the steps: an expert, or the demonstration's path.
        lost: number of pairs whose rejected action loses the task at once.
        mean_steps_lost: of the other pairs, mean of the steps that the rejected action leaves to go beyond the chosen one; None
            without such pairs.
        tasks: number of tasks with a pair.
        pairs_sha256: of `pairs.jsonl`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: str
    teachers: dict[str, int]
    envs: dict[str, int]
    elicitations: dict[str, str]
    decisions: int
    without_trace: int
    too_long: int
    states: int
    pairs: int
    identical_traces: int
    left_out: dict[str, int]
    samples: dict[str, int]
    takeover: dict[str, Takeover]
    lost: int
    mean_steps_lost: float | None
    tasks: int
    pairs_sha256: str

    def text(self) -> str:
        """Return the numbers in a line."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        line = f"{self.pairs} pairs of {self.states} states" + (f" ({left_out})" if left_out else "")
        if self.mean_steps_lost is not None:
            line += f", {self.mean_steps_lost:.1f} steps lost"
        if self.lost:
            line += f", {self.lost} that lose the task"
        return f"{line}, {self.identical_traces} with the same trace on both sides" if self.pairs else line

    @property
    def advice(self) -> str:
        """What to do where there are no pairs: it depends on why most states have none."""
        reason = max(self.left_out, key=lambda name: self.left_out[name], default="")
        return _ADVICE.get(reason, "sample more answers a state, or from an earlier checkpoint")


@dataclass(frozen=True, slots=True)
class PairsPlan:
    """What is sampled.

    Attributes:
        config: the options.
        demonstrations: whose answers are chosen.
        elicitations: environment -> the elicitation that evaluation will use.
    """

    config: PairsConfig
    demonstrations: Sequence[Demonstration]
    elicitations: Mapping[str, Elicitation]

    @property
    def data_sha256(self) -> str:
        """Digest of the demonstrations."""
        sha256 = hashlib.sha256()
        for one in self.demonstrations:
            sha256.update(one.model_dump_json().encode())
        return sha256.hexdigest()


def make_pairs_plan(config: PairsConfig) -> PairsPlan:
    """Return what is sampled.

    Raises:
        UsageError: data that cannot be trained on, data of no environment, or an elicitation whose answers are not read piece
            by piece.
        CotbenchError: an environment of the data cannot be played here.
    """
    demonstrations = [one for path in config.data for one in read_demonstrations(Path(path))]
    check_trainable(demonstrations)
    elicitations = elicitations_of(demonstrations, config.elicitation)
    for env, elicitation in elicitations.items():
        if not env:
            raise UsageError(
                "data without an environment cannot be played on after another action: use traces of cotbench traces"
            )
        if elicitation.style != "prefill":
            raise UsageError("pairs are sampled with opened tags: omit --elicitation-style")
    for env in elicitations:
        _check_playable(next(one for one in demonstrations if one.env == env))
    return PairsPlan(config, demonstrations, elicitations)


def _check_playable(demonstration: Demonstration) -> None:
    """Start a demonstration's task: what is missing for it is said before a model is loaded and answers are sampled."""
    entry = env_entry(demonstration.env)
    entry.require()
    with (
        registered_code(f"environment {entry.name}", entry.loaded_class(), EnvBugError),
        closing(entry.make(scheme="paper", split="train")) as env,
    ):
        env.reset(options={"task": demonstration.task})


def make_pairs(
    plan: PairsPlan, folder: WritableFolder, agent: Agent, observer: Callable[[SampledState, int, int], None] | None = None
) -> PairsSummary:
    """Sample the states that are not sampled yet, and write the pairs with their card.

    Args:
        plan: what is sampled.
        folder: the folder, which may hold the states of an earlier start.
        agent: whose answers are rejected.
        observer: called with each state, the number of states that are done, and the number of all.

    Raises:
        UsageError: the agent does not lend its tokenizer.
        RunFolderError: the folder holds other pairs.
    """
    expose = getattr(agent, "expose_model", None)
    if expose is None:
        raise UsageError(f"agent {plan.config.agent} tells no token ids: sample from a model, as in --agent hf:CHECKPOINT")
    for elicitation in plan.elicitations.values():
        check_elicitation(agent, elicitation)
    with expose() as handle:
        chat, context = handle.chat, handle.context
    _begin(plan, folder, agent)
    states, counts = drawn_states(plan, chat, context)
    sampler = Sampler(agent, chat, plan.elicitations, plan.config)
    with folder.journal(StatesFile) as journal:
        done = {row.key for row in journal.rows if row.error is None}
        for state in sampler.sample(states, done):
            journal.append(state)
            done.add(state.key)
            if observer is not None:
                observer(state, len(done), len(states))
        sampled = list(journal.finalize([state.key for state in states]))
    pairs = [state.pair for state in sampled if state.pair is not None]
    write_pairs(folder.path / PAIRS_JSONL, pairs)
    summary = _summary(plan, sampled, pairs, counts, folder.path)
    _write_card(folder.path, summary)
    folder.finalize(PAIRS, summary.model_dump_json(indent=2))
    return summary


def drawn_states(plan: PairsPlan, chat: Chat, context: int) -> tuple[list[State], dict[str, int]]:
    """Return the states at which answers are sampled, in the order of the data, and what was left out before the draw.

    A smaller number of states gives a subset of those of a larger one.

    Args:
        plan: what is sampled.
        chat: the model's tokenizer and template.
        context: the longest sequence that it takes, in tokens.
    """
    found: list[State] = []
    takes: Counter[str] = Counter()
    counts = {"decisions": 0, "without_trace": 0, "too_long": 0}
    for one in plan.demonstrations:
        take, takes[one.task] = takes[one.task], takes[one.task] + 1
        examples = make_examples([one], chat, plan.elicitations, context=context)
        counts["decisions"] += len(one.actions)
        counts["without_trace"] += examples.without_trace
        counts["too_long"] += len(examples.too_long)
        found += [State(one, take, example.step, example.prompt) for example in examples.flat]
    if plan.config.states is None:
        return found, counts
    order = sorted(found, key=lambda state: derive_seed(plan.config.seed, "pairs", *state.key))
    kept = {state.key for state in order[: plan.config.states]}
    return [state for state in found if state.key in kept], counts


def _begin(plan: PairsPlan, folder: WritableFolder, agent: Agent) -> None:
    """Write what is sampled, or check that the folder holds the same."""
    described = describe_agent(agent)
    config = plan.config.model_dump(mode="json")
    identity = {
        **config,
        "data": plan.data_sha256,
        **agent_identity(described),
    }
    del identity["elicitation"]
    identity |= {f"elicitation of {env}": one.fingerprint for env, one in plan.elicitations.items()}
    if folder.begun:
        folder.check_identity(read_begun(folder.path)["identity"], json.loads(json.dumps(identity)))
        return
    record = {"format": line_digest.FORMAT, "config": config, "identity": identity, "agent": described, **provenance()}
    folder.begin(json.dumps(record, indent=2))


def read_begun(folder: Path) -> dict[str, Any]:
    """Return what a folder of pairs was begun with.

    Raises:
        RunFolderError: it is none, or damaged.
    """
    path = folder / SAMPLING
    try:
        begun = parse_json(path.read_bytes())
        return {"config": dict(begun["config"]), "identity": dict(begun["identity"])}
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} holds no pairs to resume with: omit --resume") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: remove {folder} and start again") from error


def read_summary(folder: Path) -> PairsSummary:
    """Return the card of a finished folder of pairs.

    Raises:
        RunFolderError: it is none.
    """
    try:
        return PairsSummary.model_validate_json((folder / PAIRS).read_text("utf-8"))
    except (OSError, ValidationError) as error:
        raise RunFolderError(f"{folder} is no finished set of pairs: resume with: cotbench pairs --resume {folder}") from error


def _summary(
    plan: PairsPlan,
    states: Sequence[SampledState],
    pairs: Sequence[PreferencePair],
    counts: Mapping[str, int],
    folder: Path,
) -> PairsSummary:
    samples: Counter[str] = Counter()
    for state in states:
        samples.update(state.samples)
    both = [(pair.chosen.steps_to_go, pair.rejected.steps_to_go) for pair in pairs]
    steps = [after - before for before, after in both if before is not None and after is not None]
    return PairsSummary(
        agent=plan.config.agent,
        teachers=dict(Counter(pair.chosen.author for pair in pairs)),
        envs=dict(Counter(pair.env for pair in pairs)),
        elicitations={env: one.fingerprint for env, one in plan.elicitations.items()},
        **counts,
        states=len(states),
        pairs=len(pairs),
        identical_traces=sum(pair.identical_traces for pair in pairs),
        left_out=dict(sorted(Counter(state.left_out for state in states if state.left_out is not None).items())),
        samples=dict(sorted(samples.items())),
        takeover={env: takeover_of(env) for env in plan.elicitations},
        lost=len(both) - len(steps),
        mean_steps_lost=round(sum(steps) / len(steps), 3) if steps else None,
        tasks=len({pair.task for pair in pairs}),
        pairs_sha256=hashlib.sha256((folder / PAIRS_JSONL).read_bytes()).hexdigest(),
    )


def _write_card(folder: Path, summary: PairsSummary) -> None:
    text = (
        f"Preference pairs made with cotbench: at {summary.pairs} states of demonstrations, the teacher's trace and action "
        f"(`chosen`) and an answer of `{summary.agent}` whose action leaves more steps to go (`rejected`). One line of "
        f"`{PAIRS_JSONL}` is a pair: the token ids of the prompt, and of both answers piece by piece; `steps_to_go` is how "
        "many steps whoever takes over after the action needs to win the task, null where the action loses it.\n\n"
        f"All states that were drawn, those without a pair too, are in `{STATES}`; settings and versions are in `{SAMPLING}`, "
        f"the numbers in `{PAIRS}`."
    )
    tables = [DataConfig("default", {"train": PAIRS_JSONL}, columns_of(PreferencePair))]
    write_card(folder, f"Preference pairs against {summary.agent}", text, tables)
