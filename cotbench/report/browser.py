"""Data of the episode browser: the choice of episodes for a page, and their JSON form. Invariant: the same runs and budget
embed the same bytes, in JSON that cannot end the element that holds it; `browser.js` shows it and computes no number.

The form, read by `browser.js` (a page gives it in `<script type="application/json" id="episode-data">`):

    {"format": 1, "runs": [{"label": str, "of": int, "episodes": [{
        "task": str, "type": str, "mode": "prompt" | "cot", "goal": str, "success": bool, "score": float, "ending": str,
        "error"?: str, "kind"?: str, "traceback"?: str, "first": str,
        "steps": [{"action": str, "prompt"?: str, "expert"?: str, "trace"?: str, "closed"?: false, "invalid"?: str,
                   "observation": str, "score": float, "effect"?: "same" | "helped" | "hurt" | "revised"}]}]}]}

`of` is how many episodes the run has. `kind` is whose failure the error was. `first` is what was seen before step 0,
`observation` what followed a step. `closed` is false where the harness had to close the trace. `effect` is there where the
prompt action is known: the trace left it (`same`), changed it to the expert's (`helped`), away from the expert's (`hurt`), or
otherwise (`revised`). A key with `?` is left out where it is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Literal

from cotbench.prompting.dialogue import truncate_middle
from cotbench.prompting.query import derive_seed
from cotbench.report.page import BrowsedRun
from cotbench.runs.episode import Episode, Step, rows_of
from cotbench.runs.episode_row import EpisodeRow

FORMAT = 1
EPISODE_BYTES = 3_000_000
"""Default budget for the episodes of a page."""
TEXT_CHARS = 6_000
"""The largest length of an embedded observation or trace; the run folder has the full text."""

Effect = Literal["same", "helped", "hurt", "revised"]


def effect_of(step: Step) -> Effect | None:
    """Return the effect of the trace on the action; None where the prompt action is not known.

    Args:
        step: of a CoT episode.
    """
    if step.prompt_action is None:
        return None
    if not step.revised:
        return "same"
    if step.expert_action is not None and step.action == step.expert_action:
        return "helped"
    return "hurt" if step.expert_action is not None and step.prompt_action == step.expert_action else "revised"


def browsed(runs: Sequence[BrowsedRun], budget: int = EPISODE_BYTES, seed: int = 0) -> tuple[BrowsedRun, ...]:
    """Return as many of the runs' episodes as fit into a number of bytes.

    The episodes of one task stay together. Tasks are taken from the runs in turn, and within a run from each kind in turn:
    traces that helped, that hurt, that changed something, that changed nothing, each won and not won; so that every kind is
    represented. Within a kind the seed draws.

    Args:
        runs: the runs of the page.
        budget: bytes of JSON, as written into the page.
        seed: of the draws.
    """
    rows = [rows_of(run.episodes) for run in runs]
    queues = [_by_kind(run.label, some, seed) for run, some in zip(runs, rows, strict=True)]
    chosen: list[set[int]] = [set() for _ in runs]
    left = budget
    for turn in zip_longest(*queues):
        for run, some, taken, group in zip(runs, rows, chosen, turn, strict=True):
            # Only what may fit is read: of a long run that is little.
            if group and sum(_smallest_size(some[place]) for place in group) <= left:
                size = sum(len(_dumped(_episode(run.episodes[place]))) + 1 for place in group)
                if size <= left:
                    taken.update(group)
                    left -= size
    return tuple(
        replace(run, episodes=tuple(run.episodes[place] for place in sorted(taken)), of=max(run.of or 0, len(run.episodes)))
        for run, taken in zip(runs, chosen, strict=True)
    )


def _smallest_size(row: EpisodeRow) -> int:
    """Return a number of bytes that an episode's JSON takes at least."""
    return row.characters if row.longest_text <= TEXT_CHARS else 0


def _by_kind(label: str, rows: Sequence[EpisodeRow], seed: int) -> list[list[int]]:
    """Return the run's tasks, as the places of their episodes, in the order in which they are chosen."""
    tasks: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.rollout:
            continue  # Of several samples of a task the first is shown.
        tasks.setdefault(row.task, []).append(place)
    kinds: dict[tuple[str, bool], list[list[int]]] = {}
    for task in sorted(tasks, key=lambda task: derive_seed(seed, label, task, "browsed")):
        kinds.setdefault(_kind([rows[place] for place in tasks[task]]), []).append(tasks[task])
    return [group for turn in zip_longest(*(kinds[kind] for kind in sorted(kinds))) for group in turn if group is not None]


def _kind(rows: Sequence[EpisodeRow]) -> tuple[str, bool]:
    """Return the strongest effect (`effect_of`) of any trace, and whether an episode was won."""
    effect = next((name for name in ("hurt", "helped", "revised") if any(getattr(row, name) for row in rows)), "same")
    return effect, any(row.success for row in rows)


def episodes_json(runs: Iterable[BrowsedRun]) -> str:
    """Return all episodes in the form above, escaped for a `<script>` element."""
    content = [
        {"label": run.label, "of": max(run.of or 0, len(run.episodes)), "episodes": list(map(_episode, run.episodes))}
        for run in runs
    ]
    return _dumped({"format": FORMAT, "runs": content})


def _dumped(value: Any) -> str:
    """Return JSON in ASCII, without the characters that have a meaning in HTML."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _episode(episode: Episode) -> dict[str, Any]:
    fields = {
        "task": episode.task,
        "type": episode.task_type,
        "mode": episode.mode,
        "goal": episode.goal,
        "success": episode.success,
        "score": episode.score,
        "ending": _ending(episode),
        "error": episode.error,
        "kind": episode.error_kind,
        "traceback": episode.traceback,
        "first": truncate_middle(episode.first_observation, TEXT_CHARS),
        "steps": [dict(_step(step)) for step in episode.trajectory],
    }
    return {name: value for name, value in fields.items() if value is not None}


def _step(step: Step) -> Iterator[tuple[str, Any]]:
    yield "action", truncate_middle(step.action, TEXT_CHARS)
    known = {"prompt": step.prompt_action, "expert": step.expert_action, "trace": step.decision.trace}
    yield from ((name, truncate_middle(text, TEXT_CHARS)) for name, text in known.items() if text is not None)
    if step.decision.trace_truncated:
        yield "closed", False
    if step.invalid_action is not None:
        yield "invalid", step.invalid_action
    yield "observation", truncate_middle(step.observation, TEXT_CHARS)
    yield "score", step.score
    effect = effect_of(step)
    if effect is not None:
        yield "effect", effect


def _ending(episode: Episode) -> str:
    if episode.error is not None:
        return "error"
    if episode.success:
        return "won"
    return "not won, ended" if episode.terminated else "not won, steps spent"
