"""One continuation while it is written. Invariant: it sees nothing but logits, so it is written the same wherever these were
computed, and in whatever company.
"""

from __future__ import annotations

from typing import Any

from cotbench.agents.hf.sampling import Sampler
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.generation import Generation, GenerationRequest, first_stop
from cotbench.prompting.parsing import ACTION_CLOSE


class Continuation:
    """What is written for an ask.

    Attributes:
        ask: what was asked for.
        ids: the tokens so far, an end-of-turn token left out; of a given text all of it, from the beginning.
    """

    def __init__(self, ask: GenerationRequest, elicitation: Elicitation, chat: Chat, end_ids: frozenset[int]) -> None:
        self.ask = ask
        self.ids: list[int] = [] if ask.forced is None else chat.encode(ask.forced)
        self._chat, self._end_ids = chat, end_ids
        self._sampler = Sampler(elicitation.temperature, elicitation.top_p, ask.seed)
        self._logprobs: list[float] = []
        self._grown: list[str] = []

    @property
    def tokens_left(self) -> int:
        """How many tokens may still be generated."""
        return self.ask.budget - len(self._logprobs)

    @property
    def logit_rows(self) -> int:
        """After how many tokens logits are wanted, at the least."""
        return 1 if self.ask.forced is None else len(self.ids)

    def score(self, logits: Any) -> Generation:
        """The given text with its log-probabilities; `logits` is (tokens, vocabulary), before each of its tokens."""
        import torch

        scores = torch.log_softmax(logits, dim=-1)[range(len(self.ids)), self.ids].tolist()
        return Generation(
            (self.ask.forced or "").removesuffix(ACTION_CLOSE), ACTION_CLOSE, 0, (), tuple(self.ids), tuple(scores)
        )

    def append_token(self, logits: Any) -> Generation | None:
        """Choose the next token from (vocabulary); what was written, where that ends it."""
        token, logprob = self._sampler.choose(logits)
        self._logprobs.append(logprob)
        text = self._grown[-1] if self._grown else ""
        stop = "eos" if token in self._end_ids else None
        if stop is None:
            self.ids.append(token)
            text = self._chat.decode(self.ids)
            self._grown.append(text)
            found = first_stop(text, self.ask.stops, self.ask.one_line)
            if found is not None:
                text, stop = found
            elif self.tokens_left == 0:
                stop = "budget"
        if stop is None:
            return None
        return Generation(text, stop, len(self._logprobs), tuple(self._grown), tuple(self.ids), tuple(self._logprobs))
