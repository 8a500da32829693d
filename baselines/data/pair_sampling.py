"""Sampling of preference pairs: at each state of a demonstration, the first of a model's own answers whose action leaves more
steps to go than the teacher's. Invariant: a state's pair depends on the state, the model and the seed alone; every state has a
pair or a reason why not, and every sample is counted once.

A malformed answer is no rejected one: preferring the teacher's over it would teach the format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import answer_pieces, prefill_ids
from cotbench.baselines.data.admissible import admissible_of
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import example_id
from cotbench.baselines.data.pairs_config import PairsConfig
from cotbench.baselines.data.preference_pair import AnswerPiece, PairAnswer, PreferencePair
from cotbench.baselines.data.steps_to_go import Place, steps_to_go
from cotbench.envs.registry import env_entry
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query, derive_seed

Verdict = Literal["error", "malformed", "same action", "unknown", "better", "as good", "worse"]
"""What a sample is: not answered; its format is broken; the teacher's action; an action whose steps to go are not known; one
that leaves fewer, as many or more steps to go than the teacher's."""

LeftOut = Literal["error", "malformed", "another prompt", "unknown", "not worse"]
"""Why a state has no pair: a sample was not answered, or the environment failed; all samples are malformed; the prompt of the
answer is not that of the example; steps to go are not known; no action is worse than the teacher's."""

_EPISODES = 32
"""Demonstrations that are queried in one call: their prompts' caches are what memory is needed for."""


class SampledState(BaseModel):
    """One state: what its samples came to, and its pair.

    Attributes:
        env, task, take, step: see `PreferencePair`.
        samples: verdict -> number of samples.
        left_out: why it has no pair.
        error: what failed, where it decides about the pair; such a state is asked again when the work is resumed.
        pair: the pair.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str
    task: str
    take: int
    step: int
    samples: dict[Verdict, int] = Field(default_factory=dict)
    left_out: LeftOut | None = None
    error: str | None = None
    pair: PreferencePair | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Task, take and step."""
        return self.task, self.take, self.step


@dataclass(frozen=True, slots=True)
class State:
    """A state of a demonstration at which answers are sampled.

    Attributes:
        demonstration: the episode.
        take: how many demonstrations of the same task came before.
        step: number of actions executed before the state.
        prompt: token ids of the prompt of its example.
    """

    demonstration: Demonstration
    take: int
    step: int
    prompt: tuple[int, ...]

    @property
    def id(self) -> str:
        """Identifier of the decision."""
        return example_id(self.demonstration.task, self.step, self.take)

    @property
    def key(self) -> tuple[str, int, int]:
        """Task, take and step."""
        return self.demonstration.task, self.take, self.step


@dataclass(frozen=True, slots=True)
class Sampler:
    """What a state's pair depends on beside the state.

    Attributes:
        agent: answers, with token ids.
        chat: its tokenizer and template.
        elicitations: environment -> the elicitation that evaluation will use.
        config: the options.
    """

    agent: Agent
    chat: Chat
    elicitations: Mapping[str, Elicitation]
    config: PairsConfig

    def sample(self, states: Sequence[State], done: Set[tuple[str, int, int]] = frozenset()) -> Iterator[SampledState]:
        """Yield each state, in groups of demonstrations.

        Args:
            states: the states.
            done: keys of states that are left out.
        """
        by_episode: dict[tuple[str, str, int], list[State]] = {}
        for state in states:
            if state.key not in done:
                by_episode.setdefault((state.demonstration.env, state.demonstration.task, state.take), []).append(state)
        episodes = iter(sorted(by_episode.items(), key=lambda item: (item[0][0], item[0][2])))
        while group := list(islice(episodes, _EPISODES)):
            rounds: dict[tuple[str, int], list[list[State]]] = {}
            for (env, _, take), members in group:  # One demonstration of a task at a time.
                rounds.setdefault((env, take), []).append(members)
            for of_round in rounds.values():
                yield from self._sample_round(of_round)

    def _sample_round(self, episodes: Sequence[Sequence[State]]) -> Iterator[SampledState]:
        """Yield the states of demonstrations of different tasks of one environment."""
        demonstrations = [members[0].demonstration for members in episodes]
        env = demonstrations[0].env
        lists = admissible_of(demonstrations) if self.elicitations[env].show_admissible else [()] * len(demonstrations)
        states = [(number, state) for number, members in enumerate(episodes) for state in members]
        queries = [
            self._query(state, k, lists[number][state.step] if lists[number] else None)
            for number, state in states
            for k in range(self.config.samples)
        ]
        decisions = iter(decide_or_errors(self.agent, queries))
        drawn = {
            (number, state.step): [self._read(state, decision) for decision in islice(decisions, self.config.samples)]
            for number, state in states
        }
        canonical = env_entry(env).canonical()
        asked: dict[Place, list[str]] = {}
        for number, state in states:
            own = canonical(state.demonstration.actions[state.step])
            actions = [canonical(one.action) for one in drawn[number, state.step] if isinstance(one, _Answer)]
            if others := [action for action in actions if action != own]:
                asked[number, state.step] = [own, *others]
        counted = steps_to_go(demonstrations, asked)
        for number, state in states:
            place = number, state.step
            yield self._judge(state, drawn[place], counted.steps.get(place, {}), counted.failures.get(place), canonical)

    def _query(self, state: State, k: int, listed: tuple[str, ...] | None) -> Query:
        one, config = state.demonstration, self.config
        elicitation = self.elicitations[one.env].model_copy(update={"temperature": config.sampling_temperature, "top_p": 1.0})
        return Query(
            episode=f"{one.task}@{state.take}",
            env=one.env,
            task=one.task,
            step=state.step,
            mode="cot",
            dialogue=one.dialogue(state.step),
            elicitation=elicitation,
            seed=derive_seed(config.seed, one.task, state.take, state.step, k),
            rollout=k,
            admissible_actions=listed,
            return_tokens=True,
        )

    def _read(self, state: State, decision: Decision) -> _Answer | _UnusableSample:
        if decision.error is not None:
            return _UnusableSample("error", decision.error)
        pieces = sampled_pieces(self.chat, decision)
        if pieces is None:
            return _UnusableSample("malformed")
        if decision.tokens is None or decision.tokens.prompt_ids != state.prompt:
            return _UnusableSample("malformed", "another prompt")
        return _Answer(decision.action, pieces)

    def _judge(
        self,
        state: State,
        samples: Sequence[_Answer | _UnusableSample],
        steps: Mapping[str, int | None],
        failure: str | None,
        canonical: Callable[[str], str],
    ) -> SampledState:
        one = state.demonstration
        own = canonical(one.actions[state.step])
        verdicts = [_verdict(sample, own, steps, canonical) for sample in samples]
        found = SampledState(env=one.env, task=one.task, take=state.take, step=state.step, samples=Counter(verdicts))
        place = verdicts.index("worse") if "worse" in verdicts else len(samples)
        # Any of these might have been the first worse one.
        failures = [one.reason for one in samples[:place] if isinstance(one, _UnusableSample) and one.verdict == "error"]
        if failures or failure is not None:
            return found.model_copy(update={"left_out": "error", "error": failures[0] if failures else failure})
        if place < len(samples) and isinstance(sample := samples[place], _Answer):
            return found.model_copy(update={"pair": self._pair(state, sample, steps[own], steps[canonical(sample.action)])})
        unusable = [sample for sample in samples if isinstance(sample, _UnusableSample)]
        if len(unusable) == len(samples):
            other = any(sample.reason == "another prompt" for sample in unusable)
            return found.model_copy(update={"left_out": "another prompt" if other else "malformed"})
        return found.model_copy(update={"left_out": "unknown" if "unknown" in verdicts else "not worse"})

    def _pair(self, state: State, rejected: _Answer, own_steps: int | None, steps: int | None) -> PreferencePair:
        one, chat = state.demonstration, self.chat
        trace, action = str(one.traces[state.step]), one.actions[state.step]
        chosen = tuple(AnswerPiece(label=label, ids=tuple(ids)) for label, ids in answer_pieces(chat, trace, action))
        written = next(piece.ids for piece in rejected.pieces if piece.label == "trace")
        return PreferencePair(
            env=one.env,
            task=one.task,
            step=state.step,
            take=state.take,
            elicitation=self.elicitations[one.env].fingerprint,
            prompt_ids=state.prompt,
            chosen=PairAnswer(author=one.teacher, trace=trace, action=action, steps_to_go=own_steps, pieces=chosen),
            rejected=PairAnswer(
                author=self.config.agent,
                trace=chat.decode(list(written)),
                action=rejected.action,
                steps_to_go=steps,
                pieces=rejected.pieces,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """A well-formed sample."""

    action: str
    pieces: tuple[AnswerPiece, ...]


@dataclass(frozen=True, slots=True)
class _UnusableSample:
    """A sample that is none."""

    verdict: Literal["error", "malformed"]
    reason: str = ""


def _verdict(
    sample: _Answer | _UnusableSample, own: str, steps: Mapping[str, int | None], canonical: Callable[[str], str]
) -> Verdict:
    if isinstance(sample, _UnusableSample):
        return sample.verdict
    action = canonical(sample.action)
    if action == own:
        return "same action"
    before = steps.get(own)
    if before is None or action not in steps:
        return "unknown"
    after = steps[action]
    if after is None or after > before:
        return "worse"
    return "better" if after < before else "as good"


def sampled_pieces(chat: Chat, decision: Decision) -> tuple[AnswerPiece, ...] | None:
    """Return the tokens of a sampled answer piece by piece, as they were generated; None where its format is broken.

    The lengths of the pieces follow from how the turn was put together: the action's generation is the last one, and the tags
    before it were encoded on their own. A token that holds the end of the action and the beginning of its closing tag belongs
    to the action.

    Args:
        chat: the model's tokenizer and template.
        decision: a CoT decision of style prefill, with tokens.
    """
    tokens, tags = decision.tokens, chat.tags
    if tokens is None or not decision.format_ok or not decision.action.strip() or not decision.action_tokens:
        return None
    opening, between = prefill_ids(chat, (tags.think_open,)), prefill_ids(chat, (f"{tags.think_close}\n",))
    before_action = prefill_ids(chat, (tags.action_open,))
    head = list(tokens.completion_ids[: -decision.action_tokens])
    last = list(tokens.completion_ids[-decision.action_tokens :])
    until = len(head) - len(before_action) - len(between)
    trace = head[len(opening) : until]
    if head != [*opening, *trace, *between, *before_action]:
        return None
    closing = chat.decode(last).find(tags.action_close)
    if closing < 0:
        return None
    count = next(count for count in range(len(last) + 1) if len(chat.decode(last[:count])) >= closing)
    parts = (opening, trace, between, before_action, last[:count], last[count:])
    labels = ("think_open", "trace", "think_close", "action_open", "action", "closing")
    return tuple(AnswerPiece(label=label, ids=tuple(ids)) for label, ids in zip(labels, parts, strict=True))
