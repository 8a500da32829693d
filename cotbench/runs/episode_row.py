"""The small numbers of an episode: all that summaries, comparisons, trackers and the choice of a page's episodes need of it.
Invariant: a row takes a kilobyte or so, however long its episode is; it is a pure function of the episode (`episode.row_of`).
"""

from __future__ import annotations

from dataclasses import dataclass

from cotbench.failure import ErrorKind
from cotbench.prompting.elicitation import Mode


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """What is held of an episode in memory.

    Attributes:
        key: as the episode's; so are `task`, `task_type`, `mode`, `rollout`, `error`, `error_kind`, `success`, `score`, `steps`
            and `restarts`.
        last_answer: the last action of a success, as the agent wrote it; None where there is none.
        invalid_actions: steps whose action did nothing.
        generated_tokens: of the executed decisions; `prefilled_tokens` and `reused_tokens` likewise.
        format_kept: decisions whose tags the model wrote itself; `truncated_traces`: whose trace the harness had to close.
        dropped_observations: whether the dialogue had to be shortened.
        longest_shown: characters of the longest observation that an agent was shown after the first one.
        compared: steps with a prompt action; `revised` of them have another CoT action.
        prompt_decisions: steps with a prompt decision; `prompt_generated_tokens`, `prompt_prefilled_tokens` and
            `prompt_reused_tokens` are theirs.
        expert_compared: steps with a prompt action and an expert's; of `expert_revised` of them the trace changed the action:
            `helped` to the expert's, `hurt` away from it.
        characters: of all texts of the episode; `longest_text` of the longest.
    """

    key: str
    task: str
    task_type: str
    mode: Mode
    error: str | None
    error_kind: ErrorKind | None
    success: bool
    score: float
    steps: int
    restarts: int
    last_answer: str | None
    invalid_actions: int
    generated_tokens: int
    prefilled_tokens: int
    reused_tokens: int
    format_kept: int
    truncated_traces: int
    dropped_observations: bool
    longest_shown: int
    compared: int
    revised: int
    prompt_decisions: int
    prompt_generated_tokens: int
    prompt_prefilled_tokens: int
    expert_compared: int
    expert_revised: int
    helped: int
    hurt: int
    characters: int
    longest_text: int
    rollout: int = 0
    prompt_reused_tokens: int = 0

    @property
    def traceback(self) -> None:
        """None: the episode has it."""
        return None
