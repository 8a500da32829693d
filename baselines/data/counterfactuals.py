"""Counterfactual traces: at a state of a demonstration, what would be thought, and then done, for another reason. Invariant:
a counterfactual action is another one than the demonstrated action, a counterfactual trace another text; both are functions of
the demonstrations, the options and the seed alone.

Two sources. `goal`: the scripted teacher at the same state, with the same history, and the goal of another demonstration:
fluent, about what the episode has shown, executable there, and wrong for the task. It exists where the environment's teacher
acts on the goal that it reads (`EnvEntry.other_goal`), and only the traces of the scripted teacher are set against it: against
those of another teacher the wording alone would tell them apart. `donor`: trace and action of another decision of the data, as
in probe `conflict`: the action is admissible at the receiving state where the environment lists all that is; elsewhere the
functions that the donor could call are offered to the receiver as well, and whether its call can be executed there is not
checked. Of the donors drawn, those of another task and of the same task type come first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, cast

from cotbench.agents.registry import resolve
from cotbench.baselines.data.admissible import Lists, admissible_of
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import example_id
from cotbench.envs.registry import env_entry
from cotbench.errors import CotbenchError, UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query, derive_seed
from cotbench.registry import load

CounterfactualSource = Literal["auto", "goal", "donor"]

_SCRIPTED = "scripted"
"""The registered name of the scripted teacher."""

_GOALS, _DONORS = 8, 64
"""Other goals and donors that are drawn for one decision before it is left out, or every donor is looked at."""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Another trace at a decision's state, with the action that follows from it.

    Attributes:
        trace, action: texts.
        source: "goal" or "donor".
        origin: the task whose goal was taken, or the donor's id.
        unchecked: whether it is not known that the action can be executed at the state.
    """

    trace: str
    action: str
    source: str
    origin: str
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Counterfactuals:
    """The counterfactuals of some demonstrations.

    Attributes:
        by_id: example id -> its counterfactual.
        left_out: reason -> number of decisions with a trace that have none.
    """

    by_id: Mapping[str, Counterfactual]
    left_out: Mapping[str, int]

    @property
    def card(self) -> dict[str, Any]:
        """Numbers for a training's card: how many there are, of which source, and why others were left out."""
        sources = Counter(one.source for one in self.by_id.values())
        return {
            "decisions": len(self.by_id),
            **{name: sources[name] for name in ("goal", "donor")},
            "unchecked": sum(one.unchecked for one in self.by_id.values()),
            "left_out": dict(sorted(self.left_out.items())),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the counterfactuals as JSON objects, in the order of the data."""
        for id_, one in self.by_id.items():
            yield {
                **{"id": id_, "trace": one.trace, "action": one.action, "source": one.source, "origin": one.origin},
                "unchecked": one.unchecked,
            }


@dataclass(frozen=True, slots=True)
class _Place:
    """A decision of the data that has a trace."""

    demonstration: Demonstration
    step: int
    id: str

    @property
    def action(self) -> str:
        return self.demonstration.actions[self.step]

    @property
    def trace(self) -> str:
        return self.demonstration.traces[self.step] or ""


def make_counterfactuals(
    demonstrations: Sequence[Demonstration], source: CounterfactualSource = "auto", seed: int = 0
) -> Counterfactuals:
    """Return a counterfactual for each decision that has a trace and for which there is one.

    Args:
        demonstrations: what is learned from.
        source: "goal", "donor", or "auto": the goal where the traces are the scripted teacher's and it can act on another goal,
            else a donor.
        seed: of all choices.

    Raises:
        UsageError: source "goal" for data whose environment or teacher has none; or no decision has a counterfactual.
    """
    places = list(_places(demonstrations))
    by_goal = [source != "donor" and _may_swap_goals(one.demonstration) for one in places]
    if source == "goal" and not all(by_goal):
        first = places[by_goal.index(False)].demonstration
        raise UsageError(
            f"counterfactuals=goal: the traces of {first.task} ({first.env or 'no environment'}, teacher "
            f"{first.teacher or 'unknown'}) are not of a scripted teacher that acts on the goal it reads: use donor or auto"
        )
    found: dict[str, Counterfactual] = {}
    left_out: Counter[str] = Counter()
    donors: Callable[[_Place], Counterfactual | None] | None = None
    goals = {env: _firsts(demonstrations, env) for env in {one.env for one in demonstrations}}
    for place, swapped in zip(places, by_goal, strict=True):
        if swapped:
            other, reason = _of_another_goal(place, goals[place.demonstration.env], seed), "no other goal leads elsewhere"
        else:
            donors = donors or _donors(places, demonstrations, seed)
            other, reason = donors(place), "no donor"
        if other is None:
            left_out[reason] += 1
        else:
            found[place.id] = other
    if not found:
        raise UsageError(
            f"none of the {len(places)} decisions with a trace has a counterfactual "
            f"({', '.join(left_out) or 'there are none'}): use more demonstrations, of several tasks"
        )
    return Counterfactuals(found, left_out)


def _places(demonstrations: Iterable[Demonstration]) -> Iterator[_Place]:
    takes: Counter[str] = Counter()
    for one in demonstrations:
        take, takes[one.task] = takes[one.task], takes[one.task] + 1
        for step, trace in enumerate(one.traces):
            if trace:
                yield _Place(one, step, example_id(one.task, step, take))


def _may_swap_goals(demonstration: Demonstration) -> bool:
    """Tell whether a demonstration's teacher can think with another goal."""
    scripted = demonstration.teacher.partition("?")[0] == _SCRIPTED
    return scripted and bool(demonstration.env) and env_entry(demonstration.env).other_goal is not None


def _firsts(demonstrations: Sequence[Demonstration], env: str) -> list[Demonstration]:
    """Return one demonstration of each task of an environment, sorted by task."""
    return [one for _, one in sorted({one.task: one for one in reversed(demonstrations) if one.env == env}.items())]


def _of_another_goal(place: _Place, others: Sequence[Demonstration], seed: int) -> Counterfactual | None:
    """Return what the scripted teacher thinks at a decision's state with the goal of another task, where it acts otherwise."""
    one, drawing = place.demonstration, random.Random(derive_seed(seed, place.id, "counterfactual goal"))
    state = one.dialogue(place.step)
    swap = cast(Callable[[Dialogue, Dialogue], Dialogue], load(str(env_entry(one.env).other_goal)))
    teacher = resolve(one.teacher, {"slips": "0"})()
    canonical = env_entry(one.env).canonical()
    query = Query(one.task, one.env, one.task, place.step, "cot", state, Elicitation.for_env(one.env))
    for other in drawing.sample(others, min(_GOALS, len(others))):
        try:
            thought = swap(state, other.dialogue(0))
        except CotbenchError:  # A first observation that tells no goal lends none.
            continue
        if thought == state:
            continue
        decided = teacher.decide([replace(query, dialogue=thought, seed=drawing.getrandbits(63))])[0]
        if decided.error is None and decided.trace and _differs(decided.trace, decided.action, place, canonical):
            return Counterfactual(decided.trace, decided.action, "goal", other.task)
    return None


def _differs(trace: str, action: str, place: _Place, canonical: Callable[[str], str]) -> bool:
    return trace != place.trace and canonical(action) != canonical(place.action)


def _donors(
    places: Sequence[_Place], demonstrations: Sequence[Demonstration], seed: int
) -> Callable[[_Place], Counterfactual | None]:
    """Return a function that finds a decision's donor."""
    spelled = {env: env_entry(env).canonical() if env else str for env in {one.env for one in demonstrations}}
    lists = _known_lists(demonstrations)
    by_env: dict[str, list[_Place]] = {}
    by_action: dict[tuple[str, str], list[_Place]] = {}
    by_functions: dict[tuple[str, str], list[_Place]] = {}
    for one in places:
        env = one.demonstration.env
        by_env.setdefault(env, []).append(one)
        by_action.setdefault((env, spelled[env](one.action)), []).append(one)

    def offered(place: _Place) -> list[_Place]:
        """Return the decisions of demonstrations that could call nothing else than this one's."""
        env, functions = place.demonstration.env, place.demonstration.functions
        if (env, functions) not in by_functions:
            own = _function_set(functions)
            by_functions[env, functions] = [one for one in by_env[env] if _function_set(one.demonstration.functions) <= own]
        return by_functions[env, functions]

    def find(place: _Place) -> Counterfactual | None:
        env, listed = place.demonstration.env, lists.get(id(place.demonstration))
        canonical = spelled[env]
        if listed is None:
            candidates = offered(place)
        else:
            others = sorted({canonical(action) for action in listed[place.step]} - {canonical(place.action)})
            candidates = [one for action in others for one in by_action.get((env, action), ())]
        donor = _drawn(place, candidates, canonical, seed)
        if donor is None:
            return None
        return Counterfactual(donor.trace, donor.action, "donor", donor.id, unchecked=listed is None)

    return find


@cache
def _function_set(functions: str) -> frozenset[str]:
    return frozenset(functions.splitlines())


def _drawn(place: _Place, candidates: Sequence[_Place], canonical: Callable[[str], str], seed: int) -> _Place | None:
    """Return the best of some candidates drawn at random that fit; of all where none of these does."""
    if not candidates:
        return None
    drawing = random.Random(derive_seed(seed, place.id, "counterfactual donor"))
    drawn = [candidates[drawing.randrange(len(candidates))] for _ in range(_DONORS)]

    def fits(other: _Place) -> bool:
        return other.id != place.id and _differs(other.trace, other.action, place, canonical)

    def distance(other: _Place) -> tuple[bool, bool]:
        one, two = place.demonstration, other.demonstration
        return one.task == two.task, one.task_type != two.task_type

    return min(filter(fits, drawn), key=distance, default=next(filter(fits, candidates), None))


def _known_lists(demonstrations: Sequence[Demonstration]) -> dict[int, Lists]:
    """Return what was admissible at the states of each demonstration, by its identity; nothing of those that cannot be played
    again, and of an environment that lists examples alone: their donors stay unchecked, which the card counts.
    """
    found: dict[int, Lists] = {}
    for env in {one.env for one in demonstrations} - {""}:
        if not env_entry(env).lists_all_admissible:
            continue
        played = [one for one in demonstrations if one.env == env]
        try:
            found |= zip(map(id, played), admissible_of(played), strict=True)
        except CotbenchError:
            for one in played:
                with suppress(CotbenchError):
                    (found[id(one)],) = admissible_of([one])
    return found
