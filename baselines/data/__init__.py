"""Training data. Begin with `demonstration` (an episode as training data); `conversation` reads chats of others, `traces`
stores a teacher's run, `examples` encodes decisions as token ids, `token_rows` writes them for other trainers, `scored_tasks`
refuses tasks that are scored.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations, write_demonstrations
    from cotbench.baselines.data.examples import Example, Examples, make_examples
    from cotbench.baselines.data.scored_tasks import check_trainable
    from cotbench.baselines.data.traces import write_traces

_HOMES = {
    "Demonstration": "demonstration",
    "Example": "examples",
    "Examples": "examples",
    "check_trainable": "scored_tasks",
    "make_examples": "examples",
    "read_demonstrations": "demonstration",
    "write_demonstrations": "demonstration",
    "write_traces": "traces",
}

__all__ = [
    "Demonstration",
    "Example",
    "Examples",
    "check_trainable",
    "make_examples",
    "read_demonstrations",
    "write_demonstrations",
    "write_traces",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
