"""A row of probe `alignment`. Invariant: every action in it is canonical and belongs to the row's state, so that any two
of them can be compared.
"""

from __future__ import annotations

from pydantic import Field

from cotbench.probes.numbers import ProbeRow
from cotbench.probes.prompt_actions import ElicitedAction
from cotbench.prompting.elicitation import PromptAction


class AlignmentRow(ProbeRow):
    """A state's three actions, all canonical.

    Attributes:
        reference: the reference action.
        prompt_equivalent: whether the prompt action is equivalent to the reference, by the environment's rule; `cot_equivalent`
            likewise.
        actions_equivalent: whether the prompt action and the CoT action are equivalent.
        trace: the agent's own trace, as it stood between the tags.
        trace_truncated: whether the token budget ended the trace, so that the harness closed it.
        prompt_format_ok: whether every required tag was written; `cot_format_ok` likewise.
        prompt_logprob: natural logarithm of the probability of the reference action, closing tag included, from the prompt
            alone; `cot_logprob` after the agent's own trace. None where it is not known: `unscored` holds the reason.
        prompt_shortens: whether the prompt action shortens the rest of the task, by an expert that knows the whole task;
            `cot_shortens` and `reference_shortens` likewise. None where that is not known.
        elicited: the prompt action by its elicitation, the usual one among them; `not_elicited` holds the reason of each other
            that was wanted.
        prompt_tokens: length of the prompt; the other token counts are of generated tokens.
    """

    task_type: str = ""
    prompt_action: str = ""
    cot_action: str = ""
    reference: str = ""
    prompt_equivalent: bool = False
    cot_equivalent: bool = False
    actions_equivalent: bool = False
    trace: str = ""
    trace_truncated: bool = False
    prompt_format_ok: bool = True
    cot_format_ok: bool = True
    prompt_logprob: float | None = None
    cot_logprob: float | None = None
    unscored: str | None = None
    prompt_shortens: bool | None = None
    cot_shortens: bool | None = None
    reference_shortens: bool | None = None
    elicited: dict[PromptAction, ElicitedAction] = Field(default_factory=dict)
    not_elicited: dict[PromptAction, str] = Field(default_factory=dict)
    prompt_tokens: int = 0
    trace_tokens: int = 0
    prompt_action_tokens: int = 0
    cot_action_tokens: int = 0

    @property
    def prompt_match(self) -> bool:
        """True where the prompt action is the reference action."""
        return self.prompt_action == self.reference

    @property
    def cot_match(self) -> bool:
        """True where the CoT action is the reference action."""
        return self.cot_action == self.reference

    @property
    def revised(self) -> bool:
        """True where the trace changed the action."""
        return self.prompt_action != self.cot_action

    @property
    def revision(self) -> str:
        """The cell of the revision table: the prompt action right or wrong -> the CoT action right or wrong."""
        before, after = ("right" if match else "wrong" for match in (self.prompt_match, self.cot_match))
        same = "" if before == "right" or after == "right" else ", other" if self.revised else ", same"
        return f"{before} -> {after}{same}"


REVISIONS = ("right -> right", "right -> wrong", "wrong -> right", "wrong -> wrong, same", "wrong -> wrong, other")
"""The cells of the revision table; every state is in exactly one."""
