"""What an entry played, for its page. Invariant: the same bundle gives the same text; of many episodes a page holds as many as
fit into its budget, and says how many there are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.report.browser import browsed, episodes_json
from cotbench.report.page import BrowsedRun

EPISODE_BYTES = 1_000_000
"""Of the episodes in a page."""


@dataclass(frozen=True, slots=True)
class EntryEpisodes:
    """An entry's episodes and manifest.

    Attributes:
        episodes: JSON for the episode browser, fit to stand in a `<script>` element.
        shown: how many episodes are in it, `of` how many.
        manifest: as text.
    """

    episodes: str
    shown: int
    of: int
    manifest: str


def entry_episodes(bundle: Bundle, budget: int = EPISODE_BYTES) -> EntryEpisodes:
    """What a bundle holds, for the page."""
    runs = browsed((BrowsedRun(bundle.details.name, bundle.episodes),), budget)
    return EntryEpisodes(
        episodes=episodes_json(runs),
        shown=sum(len(run.episodes) for run in runs),
        of=len(bundle.episodes),
        manifest=json.dumps(bundle.manifest.model_dump(mode="json"), indent=2, ensure_ascii=False),
    )
