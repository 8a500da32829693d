"""States of a reference run: what its agent was asked, drawn evenly over the tasks, a smaller draw within a larger."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cotbench.errors import UsageError
from cotbench.probes.states import read_states
from tests.lines import read_objects, write_objects


def _with_episodes(reference: Any, folder: Path, change: Any) -> Path:
    """A copy of the run in which every episode was changed by a function."""
    shutil.copytree(reference.folder, folder)
    file = folder / "episodes.jsonl"
    write_objects(file, [change(place, row) for place, row in enumerate(read_objects(file))])
    return folder


def test_the_states_are_what_the_reference_was_asked(reference: Any) -> None:
    found = read_states(reference.folder)
    assert (found.env, found.scheme, found.split, found.reference) == ("alfworld-gen", "paper", "id", "scripted")
    assert (found.episodes, found.tasks) == (5, 5)
    said = {(query.task, query.step): (query, decision) for query, decision in reference.said}
    assert {one.key for one in found.states} == set(said)
    for one in found.states:
        query, decision = said[one.key]
        assert one.dialogue == query.dialogue
        assert (one.action, one.trace) == (decision.action, decision.trace)
        assert one.goal in one.dialogue.observations[0]


def test_a_draw_is_nested_spread_and_a_function_of_the_seed(reference: Any) -> None:
    whole = read_states(reference.folder).states
    lengths = Counter(one.task for one in whole)
    for seed in (0, 1):
        smaller: set[Any] = set()
        for limit in range(1, len(whole) + 1):
            drawn = read_states(reference.folder, limit, seed).states
            keys = {one.key for one in drawn}
            assert len(keys) == limit
            assert smaller <= keys
            smaller = keys
            counts = Counter(one.task for one in drawn)
            # No task has two more than another that has states left.
            assert all(counts[task] >= max(counts.values()) - 1 for task in lengths if counts[task] < lengths[task])
            assert [one for one in whole if one.key in keys] == list(drawn), "in the order of the run"
    draws = [read_states(reference.folder, 7, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0].sha256 == draws[1].sha256 != draws[2].sha256
    assert {one.key for one in draws[0].states} != {one.key for one in draws[2].states}


def test_only_what_was_won_in_cot_mode_counts(reference: Any, tmp_path: Path) -> None:
    def lost(place: int, episode: Any) -> Any:
        changes = [{"success": False}, {"error": "Java died", "success": False}, {"mode": "prompt"}]
        return {**episode, **(changes[place] if place < 3 else {})}

    found = read_states(_with_episodes(reference, tmp_path / "some", lost))
    assert (found.episodes, found.tasks) == (2, 2)
    none = _with_episodes(reference, tmp_path / "none", lambda place, episode: {**episode, "success": False})
    with pytest.raises(UsageError, match="no successful episode in CoT mode"):
        read_states(none)


def test_the_digest_sees_every_text(reference: Any, tmp_path: Path) -> None:
    def change(place: int, episode: Any) -> Any:
        episode["trajectory"][0]["observation"] += " "
        return episode

    other = _with_episodes(reference, tmp_path / "other", change)
    assert read_states(other).sha256 != read_states(reference.folder).sha256
