"""The prompt of a query in token ids. Invariant: evaluation and training make a prompt here and nowhere else, so a model is
trained on exactly what it is later shown.
"""

from __future__ import annotations

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.prompting.dialogue import Dialogue, fit_context
from cotbench.prompting.generation import prompt_limit
from cotbench.prompting.query import Query


def prompt_ids(query: Query, chat: Chat, context: int) -> tuple[list[int], int]:
    """The ids of a query's prompt, and how many observations were dropped so that it fits.

    Args:
        query: the state, and how it is asked for.
        chat: the model's tokenizer and template.
        context: the longest prompt and answer together, in tokens.

    Raises:
        ContextOverflowError: it does not fit even so.
        AgentError: the template drops a message.
    """
    made: dict[Dialogue, list[int]] = {}

    def length(dialogue: Dialogue) -> int:
        messages = query.elicitation.messages(dialogue, query.mode, query.admissible_actions)
        made[dialogue] = chat.prompt_ids(messages)
        return len(made[dialogue])

    shown, dropped = fit_context(query.dialogue, length, prompt_limit(query.elicitation, context))
    return made[shown], dropped
