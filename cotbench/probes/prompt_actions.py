"""The prompt action of a state, elicited in several ways beside the one that a study uses. Invariant: all of them, and the CoT
action, belong to one state and one prompt; a way that cannot be measured has a reason, and no state is lost for it.

`bare` is written after the opening action tag, `empty` after an empty trace and that tag, so that the difference of the two is
the tags' effect and that of `empty` and CoT the trace's. `ranked` is the admissible action of the highest log-probability
(`cotbench.agents.ranking`), which cannot miss the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from cotbench.agents.base import Agent, scores_actions
from cotbench.agents.decisions import decide_or_errors
from cotbench.agents.ranking import expanded, merged
from cotbench.envs.registry import env_entry
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import listed_at
from cotbench.probes.states import AdmissibleActions, ProbeState, StateKey
from cotbench.prompting.elicitation import PROMPT_ACTIONS, PromptAction
from cotbench.prompting.query import Decision, Query

_TEMPLATE = "with style template no tag is opened"


class ElicitedAction(BaseModel):
    """A prompt action that was elicited in one way.

    Attributes:
        action: canonical.
        equivalent: whether it is equivalent to the reference action.
        format_ok: whether every required tag was written; of a ranked action always.
        shortens: whether it shortens the rest of the task; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    action: str
    equivalent: bool
    format_ok: bool = True
    shortens: bool | None = None


Elicited = dict[PromptAction, Decision | str]
"""The decisions of one state by their elicitation; the reason in place of one that is not known."""


@dataclass(frozen=True, slots=True)
class PromptElicitations:
    """Ask for the prompt action in the ways that are wanted beside the main one.

    Attributes:
        agent: the agent that is measured.
        setting: the settings of the measurement; its elicitation's `prompt_action` is the main way.
        states: all states that are measured.
        wanted: the ways.
    """

    agent: Agent
    setting: ProbeSetting
    states: Sequence[ProbeState]
    wanted: Sequence[PromptAction]

    @property
    def main(self) -> PromptAction:
        """The way in which the study elicits prompt actions."""
        return self.setting.elicitation.prompt_action

    @property
    def written(self) -> tuple[PromptAction, ...]:
        """The further ways in which the agent writes an action, so that they can be asked for beside the main one."""
        ways = [way for way in self.wanted if way not in (self.main, "ranked")]
        return tuple(way for way in ways if way == "bare" or self.setting.elicitation.style == "prefill")

    def written_queries(self, prompt: Query) -> list[Query]:
        """Return a query for each way in `written`.

        Args:
            prompt: the query of the main way.
        """
        return [self._query(prompt, way) for way in self.written]

    def refused(self) -> Elicited:
        """Return the reasons of the ways in which no state can be asked."""
        entry = env_entry(self.setting.states.env)
        reasons: Elicited = {}
        for way in self.wanted:
            if way in (self.main, *self.written):
                continue
            if self.setting.elicitation.style == "template":
                reasons[way] = _TEMPLATE
            elif not entry.lists_all_admissible:
                reasons[way] = f"{entry.name} does not list all of its admissible actions"
        return reasons

    def ranked(self, cases: Mapping[StateKey, tuple[Query, str | None]]) -> dict[StateKey, Decision | str]:
        """Return the ranked prompt action of each state, or the reason why it is not known.

        Args:
            cases: the query of the main way, and why the agent could not score the reference action there; "" where that was
                not tried.
        """
        if "ranked" not in self.wanted or self.main == "ranked" or "ranked" in self.refused():
            return {}
        found: dict[StateKey, Decision | str] = {}
        queries: dict[StateKey, Query] = {}
        for key, (prompt, unscored) in cases.items():
            if unscored or (unscored == "" and not scores_actions(self.agent)):
                found[key] = unscored or "the agent does not say that it scores given actions"
                continue
            listed = self._listed(key)
            if listed.actions is None:
                found[key] = listed.reason or "not known what is admissible"
            elif not listed.actions:
                found[key] = "nothing is admissible"
            else:
                queries[key] = replace(self._query(prompt, "ranked"), admissible_actions=listed.actions)
        wanted = list(queries.values())
        decisions = merged(wanted, decide_or_errors(self.agent, expanded(wanted)))
        for key, decision in zip(queries, decisions, strict=True):
            found[key] = decision if decision.error is None else decision.error
        return found

    def _listed(self, key: StateKey) -> AdmissibleActions:
        if key not in self.setting.listed:
            listed_at(self.setting, self.states)  # Of all states at once: each task is played again a single time.
        return self.setting.listed[key]

    def _query(self, prompt: Query, way: PromptAction) -> Query:
        return replace(prompt, elicitation=self.setting.elicitation.model_copy(update={"prompt_action": way}))


def elicited_actions(
    found: Elicited, state: ProbeState, setting: ProbeSetting, shortens: Callable[[str], bool | None]
) -> dict[PromptAction, ElicitedAction]:
    """Return the actions of a state's decisions, canonical and compared with the reference.

    Args:
        found: the decisions by their elicitation.
        state: the state.
        setting: the environment's spelling and equivalence of actions.
        shortens: whether an action shortens the rest of the task.
    """
    actions: dict[PromptAction, ElicitedAction] = {}
    for way, decision in found.items():
        if not isinstance(decision, str):
            action = setting.canonical(decision.action)
            equivalent = setting.equivalent(action, state.action)
            actions[way] = ElicitedAction(
                action=action, equivalent=equivalent, format_ok=decision.format_ok, shortens=shortens(action)
            )
    return actions


def reasons(found: Elicited) -> dict[PromptAction, str]:
    """Return why an elicitation was not measured, for each that was not."""
    return {way: reason for way, reason in found.items() if isinstance(reason, str)}


def known_ways(rows: Iterable[Mapping[PromptAction, ElicitedAction]]) -> list[PromptAction]:
    """Return the elicitations that any state was measured with, in their usual order."""
    found = {way for row in rows for way in row}
    return [way for way in PROMPT_ACTIONS if way in found]
