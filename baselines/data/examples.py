"""One decision encoded for training. Invariant: an example's token ids are those of the query in evaluation (the same dialogue,
elicitation, template, pieces), and its spans are known from how the ids were put together, never searched for in rendered
text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import Label, answer_pieces, prompt_ids
from cotbench.baselines.data.admissible import Lists, admissible_of
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import ContextOverflowError, UsageError
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.parsing import USUAL_TAGS
from cotbench.prompting.query import Query


@dataclass(frozen=True, slots=True)
class Span:
    """Label of the tokens `start` to `end` of an example."""

    label: Label
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Example:
    """Decision: the prompt and the whole answer.

    Attributes:
        task: the task id.
        step: which decision of its episode.
        ids: token ids of prompt and answer.
        spans: in order and without gaps; the first is the prompt, the others are the answer.
        take: how many demonstrations of the same task came before.
    """

    task: str
    step: int
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    take: int = 0

    @property
    def id(self) -> str:
        """Identifier of the example within its data."""
        return example_id(self.task, self.step, self.take)

    @property
    def prompt(self) -> tuple[int, ...]:
        """Token ids of the prompt."""
        return self.ids[: self.spans[0].end]

    @property
    def answer(self) -> tuple[int, ...]:
        """Token ids of the answer."""
        return self.ids[self.spans[0].end :]

    def part(self, label: Label) -> tuple[int, ...]:
        """Return the token ids of the span with this label; nothing where there is none."""
        return next((self.ids[span.start : span.end] for span in self.spans if span.label == label), ())


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of some demonstrations, episode by episode, and counts of the decisions without one.

    Attributes:
        episodes: the examples of each demonstration, in order of steps.
        too_long: ids of the decisions that do not fit into `context`; they are left out completely, none is cut.
        shortened: number of prompts from which observations were dropped, as in evaluation.
        without_trace: number of decisions without a trace, and so without an example.
        beyond_budget: number of answers with a trace or an action that evaluation's token budgets would cut.
    """

    episodes: tuple[tuple[Example, ...], ...]
    too_long: tuple[str, ...]
    shortened: int
    without_trace: int
    beyond_budget: int

    @property
    def flat(self) -> list[Example]:
        """All examples, one after the other."""
        return [example for episode in self.episodes for example in episode]


def with_answer(example: Example, chat: Chat, trace: str, action: str) -> Example:
    """Return an example of the same state with another answer.

    Args:
        example: of a decision with a trace.
        chat: the model's tokenizer and template.
        trace, action: of the other answer.
    """
    pieces = answer_pieces(chat, trace, action, ended=True)
    return _put_together(example.task, example.step, example.take, example.prompt, pieces)


def elicitations_of(demonstrations: Iterable[Demonstration], options: Mapping[str, Any]) -> dict[str, Elicitation]:
    """Return environment -> the elicitation that evaluation will use, for the environments of some demonstrations.

    Args:
        demonstrations: what is learned from.
        options: fields of `Elicitation` that are not as usual.

    Raises:
        UsageError: a value that does not fit, or other tags than the usual ones.
    """
    return elicitations_for((one.env for one in demonstrations), options)


def elicitations_for(envs: Iterable[str], options: Mapping[str, Any]) -> dict[str, Elicitation]:
    """Return environment -> the elicitation that evaluation will use.

    Args:
        envs: names of environments, in any order; empty for none.
        options: fields of `Elicitation` that are not as usual.

    Raises:
        UsageError: a value that does not fit, or other tags than the usual ones.
    """
    try:
        found = {env: Elicitation.for_env(env, **options) if env else Elicitation(**options) for env in sorted(set(envs))}
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"elicitation.{first['loc'][-1]} {first['input']}: {first['msg']}") from error
    if any(one.tags != USUAL_TAGS for one in found.values()):
        raise UsageError(
            f"answers are trained only in the tags {USUAL_TAGS.think_open} and {USUAL_TAGS.action_open}: omit --think-tag and "
            "--action-tag"
        )
    return found


def make_examples(
    demonstrations: Iterable[Demonstration],
    chat: Chat,
    elicitation: Mapping[str, Elicitation],
    *,
    context: int,
    longest: int | None = None,
    bare: bool = False,
    prompt_share: float = 0.0,
    seed: int = 0,
) -> Examples:
    """Return an example for each decision that has a trace.

    Args:
        demonstrations: what is learned from.
        chat: the model's tokenizer and template.
        elicitation: environment -> the elicitation that evaluation will use.
        context: context length of the model in tokens: in evaluation, observations are dropped until prompt and answer fit.
        longest: tokens of the longest example that is kept; default: `context`.
        bare: whether an answer is the action alone, as in mode prompt, and no past trace is shown. The decisions are the same,
            for one without a trace may be a deliberate mistake; they are all where a demonstration has no trace at all.
        prompt_share: share of the decisions that are bare where `bare` is false.
        seed: of the choice of that share.

    Raises:
        UsageError: prompts list the admissible actions, and these are not known of a demonstration.
    """
    episodes, too_long, shortened, without, beyond = [], [], 0, 0, 0
    takes: Counter[str] = Counter()
    demonstrations = list(demonstrations)
    lists = _lists(demonstrations, elicitation)
    for demonstration, admissible in zip(demonstrations, lists, strict=True):
        examples, task, elicited = [], demonstration.task, elicitation[demonstration.env]
        take, takes[task] = takes[task], takes[task] + 1
        untraced = not any(demonstration.traces)
        for step, (action, trace) in enumerate(zip(demonstration.actions, demonstration.traces, strict=True)):
            if not trace and not (bare and untraced):
                without += 1
                continue
            at_once = bare or in_prompt_share(example_id(task, step, take), prompt_share, seed)
            mode: Mode = "prompt" if at_once else "cot"
            state = demonstration.dialogue(step)
            if at_once:
                state = replace(state, traces=(None,) * step)
            listed = admissible[step] if admissible else None
            query = Query(task, demonstration.env, task, step, mode, state, elicited, admissible_actions=listed)
            try:
                prompt, dropped = prompt_ids(query, chat, context)
            except ContextOverflowError:
                too_long.append(example_id(task, step, take))
                continue
            pieces = answer_pieces(chat, None if at_once else trace, action, ended=True)
            example = _put_together(task, step, take, prompt, pieces)
            if len(example.ids) > (longest or context):
                too_long.append(example.id)
                continue
            shortened += dropped > 0
            over = (
                len(example.part("trace")) >= elicited.trace_tokens,
                len(example.part("action")) >= elicited.action_tokens,
            )
            beyond += any(over)
            examples.append(example)
        if examples:
            episodes.append(tuple(examples))
    return Examples(tuple(episodes), tuple(too_long), shortened, without, beyond)


def _lists(demonstrations: Sequence[Demonstration], elicitation: Mapping[str, Elicitation]) -> list[Lists]:
    """Return the admissible actions at each state of each demonstration whose prompts list them; of another nothing."""
    wanted = [place for place, one in enumerate(demonstrations) if elicitation[one.env].show_admissible]
    lists: list[Lists] = [()] * len(demonstrations)
    for place, found in zip(wanted, admissible_of([demonstrations[place] for place in wanted]), strict=True):
        lists[place] = found
    return lists


def example_id(task: str, step: int, take: int = 0) -> str:
    """Return the identifier of a decision within its data.

    Args:
        task: the task id.
        step: which decision of its episode, counted from 0.
        take: how many demonstrations of the same task came before.
    """
    return f"{task}{f'@{take}' if take else ''}#{step}"


def in_prompt_share(id_: str, share: float, seed: int) -> bool:
    """Tell whether a decision is trained in mode prompt; a larger share holds all that a smaller one holds.

    Args:
        id_: the decision's identifier, as `example_id` makes it.
        share: share of all decisions that are, from 0 to 1.
        seed: of the choice.
    """
    return share > 0 and random.Random(f"cotbench-prompt-{seed}-{id_}").random() < share


def _put_together(task: str, step: int, take: int, prompt: Sequence[int], pieces: Sequence[tuple[Label, list[int]]]) -> Example:
    ids, spans = list(prompt), [Span("prompt", 0, len(prompt))]
    for label, piece in pieces:
        spans.append(Span(label, len(ids), len(ids) + len(piece)))
        ids += piece
    return Example(task, step, tuple(ids), tuple(spans), take)
