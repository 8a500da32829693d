"""The largest submission. Invariant: whatever stays within these limits can be read, checked and stored in bounded time and
memory, and a run of a scored split in both modes stays within them.
"""

from __future__ import annotations

from typing import Final

MB: Final = 1_000_000

PACKED: Final = 64 * MB
"""Bytes of a submission. A run of 240 episodes of 50 steps takes less than 1 MB."""

EXPANDED: Final = 256 * MB
"""Bytes of its files together, after expanding."""

SUBMISSION: Final = 16_000
"""Bytes of `submission.json`: a name, a team and a link of at most 700 characters, each escaped in at most 12 bytes."""

MANIFEST: Final = 8 * MB
"""Bytes of `manifest.json`: the longest list of tasks that can be named one by one takes 2 MB, twice."""

LINE: Final = 32 * MB
"""Bytes of one line of `episodes.jsonl`: 168 steps (the largest budget of BFCL) with traces of 32,000 tokens fit."""

EPISODES: Final = 20_000
"""Lines of `episodes.jsonl`: the largest scored split has 1,819 tasks, in two modes."""

STEPS: Final = 2_000
"""Steps of an episode: the largest step budget is 900."""

ALL_STEPS: Final = 250_000
"""Steps of all episodes: about a kilobyte is written of each, so these many fill the expanded size."""

ACTIONS: Final = 16 * MB
"""Characters of all actions of a submission, prompt actions too: a million of calls take up to 5 seconds to read. An action has
about 25, a list of calls 100.
"""

CONTAINERS: Final = 3 * STEPS + 10
"""Objects and lists in one line, or in one file: a step has three, the decisions in it counted."""

VALUES: Final = 40 * STEPS
"""Commas in one line, or in one file: between a step's values stand 34."""

NUMBER: Final = 40
"""Characters of a number: the longest that is written has 25."""

INTEGER: Final = 2**63
"""Integers are smaller than this, in absolute value: what a database takes."""

QUOTED: Final = 80
"""Characters of a submitted text that an error shows."""
