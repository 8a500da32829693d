"""Preference pairs for tests: demonstrations whose rejected answers are written by hand, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import answer_pieces
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import make_examples
from cotbench.baselines.data.preference_pair import AnswerPiece, PairAnswer, PreferencePair
from cotbench.prompting.elicitation import Elicitation


def answer(chat: Chat, trace: str, action: str, steps_to_go: int, author: str = "test") -> PairAnswer:
    """An answer as it is encoded."""
    pieces = tuple(AnswerPiece(label=label, ids=tuple(ids)) for label, ids in answer_pieces(chat, trace, action))
    return PairAnswer(author=author, trace=trace, action=action, steps_to_go=steps_to_go, pieces=pieces)


def pairs_of(demonstrations: Sequence[Demonstration], tokenizer: Any, *, identical: Sequence[int] = ()) -> list[PreferencePair]:
    """A pair at each state with a trace: rejected is what the demonstration does at its first step.

    Args:
        demonstrations: what is chosen.
        tokenizer: of the model.
        identical: numbers of the pairs whose two traces are the same.
    """
    chat, found = Chat(tokenizer), []
    for one in demonstrations:
        elicitation = Elicitation.for_env(one.env)
        examples = make_examples([one], chat, {one.env: elicitation}, context=4096).flat
        for example in examples[1:]:
            trace, action = str(one.traces[example.step]), one.actions[example.step]
            other = trace if len(found) in identical else str(one.traces[examples[0].step])
            found.append(
                PreferencePair(
                    env=one.env,
                    task=one.task,
                    step=example.step,
                    elicitation=elicitation.fingerprint,
                    prompt_ids=example.prompt,
                    chosen=answer(chat, trace, action, 3, "teacher"),
                    rejected=answer(chat, other, one.actions[examples[0].step], 5, "model"),
                )
            )
    return found
