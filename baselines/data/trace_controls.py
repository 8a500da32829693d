"""Control traces: what stands in for a demonstration's own traces in arms whose outcome is known by construction. Invariant:
actions and observations stay as they are, and a control is a function of the demonstrations, the tokenizer and the seed alone.

`none` trains the action alone, after the prompt: the examples leave the traces out. `shuffled` gives each decision the trace of
a decision of another task with another action: every trace is used once, so that all texts and lengths stay, and only what ties
a trace to its state is gone. `filler` repeats "..." to the length of the own trace in tokens (Lanham et al. 2023, arXiv
2307.13702, "filler tokens").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import UsageError

TraceControl = Literal["own", "none", "shuffled", "filler"]

_FILLER = "..."
_TRIES = 200
"""Random swaps that are tried for one decision before every other one is tried."""


def control_traces(
    demonstrations: Sequence[Demonstration], control: TraceControl, chat: Chat, seed: int
) -> list[Demonstration]:
    """Return the demonstrations with other traces.

    Args:
        demonstrations: with the teacher's own traces.
        control: what takes their place; a step without a trace stays without one.
        chat: the tokenizer that measures the length of filler.
        seed: of the shuffle.

    Raises:
        UsageError: the traces cannot be shuffled, for too many decisions have one task or one action.
    """
    if control in ("own", "none"):
        return list(demonstrations)
    if control == "filler":
        return _mapped(demonstrations, lambda trace: filler(chat, _length(chat, trace)))
    return _shuffled(demonstrations, seed)


def filler(chat: Chat, tokens: int) -> str:
    """Return a text without content of a given length.

    Args:
        chat: the tokenizer.
        tokens: the length; it is met wherever the tokenizer has a token for a single dot or blank.
    """
    text = _FILLER
    while _length(chat, longer := f"{text} {_FILLER}") <= tokens:
        text = longer
    for end in ("", ".", "..", " .", " ..", " . .", " . . ."):
        if _length(chat, text + end) == tokens:
            return text + end
    return next((cut for cut in (text[:size] for size in range(len(text), 0, -1)) if _length(chat, cut) <= tokens), ".")


def _length(chat: Chat, text: str) -> int:
    return len(chat.encode(chat.escape_special(text)))


def _mapped(demonstrations: Sequence[Demonstration], change: Callable[[str], str]) -> list[Demonstration]:
    texts = dict.fromkeys(trace for one in demonstrations for trace in one.traces if trace)
    changed = {text: change(text) for text in texts}
    return [
        one.model_copy(update={"traces": tuple(changed[trace] if trace else trace for trace in one.traces)})
        for one in demonstrations
    ]


def _shuffled(demonstrations: Sequence[Demonstration], seed: int) -> list[Demonstration]:
    places = [(index, step) for index, one in enumerate(demonstrations) for step, trace in enumerate(one.traces) if trace]
    tasks = [demonstrations[index].task for index, _ in places]
    actions = [demonstrations[index].actions[step] for index, step in places]

    def fits(receiver: int, donor: int) -> bool:
        return tasks[receiver] != tasks[donor] and actions[receiver] != actions[donor]

    donors = _permutation(len(places), fits, random.Random(f"cotbench-traces-{seed}"))
    traces = [list(one.traces) for one in demonstrations]
    for receiver, donor in enumerate(donors):
        index, step = places[receiver]
        from_, at = places[donor]
        traces[index][step] = demonstrations[from_].traces[at]
    return [one.model_copy(update={"traces": tuple(own)}) for one, own in zip(demonstrations, traces, strict=True)]


def _permutation(count: int, fits: Callable[[int, int], bool], drawing: random.Random) -> list[int]:
    """Return a random permutation in which every place fits what it receives: a random one, in which each place that does not
    fit is swapped with a random one of those with which both fit.

    Raises:
        UsageError: a place is left that can be swapped with none.
    """
    donors = list(range(count))
    drawing.shuffle(donors)
    for place in range(count):
        if fits(place, donors[place]):
            continue
        tried = (drawing.randrange(count) for _ in range(_TRIES))
        every = drawing.sample(range(count), count) if count <= _TRIES else range(count)
        for other in (*tried, *every):
            if fits(place, donors[other]) and fits(other, donors[place]):
                donors[place], donors[other] = donors[other], donors[place]
                break
        else:
            raise UsageError(
                "traces=shuffled: there is no way to give each decision the trace of another task and another action; "
                "use more demonstrations, of several tasks"
            )
    return donors
