"""The action sequences of a submission. Invariant: two episodes have the same digest exactly where the same actions were
executed on the same task; names, token counts, traces, modes and the manifest do not matter to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode

DIGITS: Final = 16
SAME: Final = 0.95
"""From this share of the tasks on, an entry is a copy of an earlier one: a copy with an altered action in a lost episode stays
one.
"""
NEAR: Final = 0.5
"""From this share on, what two entries have in common is shown with them."""

Sequences = Mapping[Mode, frozenset[str]]
"""From a mode to the digests of its episodes; an episode that ended in an error has none."""


def sequence_digest(episode: Episode) -> str:
    """Return the digest of a task and the actions that were executed on it."""
    played = json.dumps([episode.task, *(step.action for step in episode.trajectory)], separators=(",", ":"))
    return hashlib.sha256(played.encode()).hexdigest()[:DIGITS]


def sequences_of(episodes: Iterable[Episode]) -> dict[Mode, frozenset[str]]:
    """Return the digests of the episodes that were played to their end, for each mode that has any."""
    found: dict[Mode, set[str]] = {}
    for episode in episodes:
        if episode.error is None:
            found.setdefault(episode.mode, set()).add(sequence_digest(episode))
    return {mode: frozenset(found[mode]) for mode in MODES if mode in found}


def mode_notes(sequences: Sequences, episodes: Iterable[Episode]) -> tuple[str, ...]:
    """Describe what the two modes of a submission have in common; an agent whose trace never changes anything does that too.

    Args:
        sequences: of the episodes.
        episodes: the submission's.
    """
    notes = []
    if len(sequences) == len(MODES):
        prompt, cot = sequences["prompt"], sequences["cot"]
        same, of = len(prompt & cot), min(len(prompt), len(cot))
        if same >= SAME * of:
            notes.append(f"the prompt-mode episodes take the actions of the CoT episodes in {same:,} of {of:,} tasks")
    states = [step for episode in episodes for step in episode.trajectory if step.prompt_action is not None]
    equal = sum(not step.revised for step in states)
    if states and equal >= SAME * len(states):
        notes.append(f"the prompt actions equal the CoT actions in {equal:,} of {len(states):,} states")
    return tuple(notes)
