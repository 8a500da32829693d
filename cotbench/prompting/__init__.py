"""What a model is shown and how its answer is read. Begin with `elicitation` (how an answer is asked for) and `query` (what an
agent is asked and answers); `dialogue` is the episode so far, `generation` how an answer is made of pieces, `parsing` how text
is read.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.prompting.dialogue import Dialogue
    from cotbench.prompting.elicitation import MODES, Elicitation, Message, Mode
    from cotbench.prompting.generation import answer_program
    from cotbench.prompting.parsing import Answer, clean_action, parse_answer
    from cotbench.prompting.query import Decision, Query, derive_seed

_HOMES = {
    "Answer": "parsing",
    "Decision": "query",
    "Dialogue": "dialogue",
    "Elicitation": "elicitation",
    "MODES": "elicitation",
    "Message": "elicitation",
    "Mode": "elicitation",
    "Query": "query",
    "answer_program": "generation",
    "clean_action": "parsing",
    "derive_seed": "query",
    "parse_answer": "parsing",
}

__all__ = [
    "MODES",
    "Answer",
    "Decision",
    "Dialogue",
    "Elicitation",
    "Message",
    "Mode",
    "Query",
    "answer_program",
    "clean_action",
    "derive_seed",
    "parse_answer",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
