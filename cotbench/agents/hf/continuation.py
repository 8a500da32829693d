"""One continuation while it is generated: sampling, stop strings, log-probabilities. Invariant: it sees nothing but the logits
and the seed of its own sequence, so it comes out the same wherever these were computed, and whatever is computed beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cotbench.agents.hf.top_rows import TopRows
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.detokenizer import Detokenizer
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.generation import Generation, GenerationRequest, first_stop


class Sampler:
    """Choose the next tokens of one continuation.

    Args:
        temperature: 0 is greedy.
        top_p: the nucleus: the fewest tokens whose probability reaches it.
        seed: of a random generator of its own.
    """

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self.temperature, self._top_p, self._seed = temperature, top_p, seed
        self._generator: Any = None

    @property
    def greedy(self) -> bool:
        """Return whether the most probable token is chosen."""
        return self.temperature == 0.0

    def choose(self, logits: Any) -> tuple[int, float]:
        """Return the next token's id, and the natural logarithm of its probability at temperature 1.

        Args:
            logits: float32, (vocabulary,).
        """
        import torch

        logprobs = torch.log_softmax(logits, dim=-1)
        if self.greedy:
            token = int(torch.argmax(logits))
            return token, float(logprobs[token])
        probabilities = torch.softmax(logits.cpu() / self.temperature, dim=-1)
        probabilities, order = torch.sort(probabilities, descending=True, stable=True)
        # The nucleus; the most probable token always belongs to it.
        before = torch.cumsum(probabilities, dim=-1) - probabilities
        probabilities = torch.where(before < self._top_p, probabilities, torch.zeros(()))
        token = int(order[int(torch.multinomial(probabilities, 1, generator=self._own_generator()))])
        return token, float(logprobs[token])

    def choose_from(self, rows: TopRows, row: int) -> tuple[int, float]:
        """Return the same for a row of which the most probable candidates are known."""
        import torch

        uniform = torch.rand((), dtype=torch.float64, generator=self._own_generator())
        return rows.choose(row, self._top_p, float(uniform))

    def _own_generator(self) -> Any:
        import torch

        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self._seed)
        return self._generator


def _require_finite(logprob: float) -> None:
    if not math.isfinite(logprob):
        raise AgentError(
            f"the model computed no probability for a token (its logarithm is {logprob}): its numbers overflow, or its weights "
            "are broken; try ?dtype=bfloat16 or float32"
        )


class Continuation:
    """Collect the tokens that are generated for one request.

    Args:
        request: what is wanted.
        elicitation: temperature and top-p.
        chat: the model's tokenizer.
        end_ids: token ids that end the assistant's turn.

    Attributes:
        request: what is wanted.
        ids: the tokens so far, an end-of-turn token left out; of a forced text all of it, from the beginning.
    """

    def __init__(self, request: GenerationRequest, elicitation: Elicitation, chat: Chat, end_ids: frozenset[int]) -> None:
        self.request = request
        self.ids: list[int] = [] if request.forced is None else chat.encode(request.forced)
        self._end_ids = end_ids
        self._sampler = Sampler(elicitation.temperature, elicitation.top_p, request.seed)
        self._logprobs: list[float] = []
        self._text = Detokenizer(chat)
        self._text_after_token: list[str] = []

    @property
    def tokens_left(self) -> int:
        """Return how many tokens may still be generated."""
        return self.request.budget - len(self._logprobs)

    @property
    def logit_rows(self) -> int:
        """Return how many rows of logits are needed next: one to generate a token, one for each token of a forced text."""
        return 1 if self.request.forced is None else len(self.ids)

    def score(self, logits: Any) -> Generation:
        """Return the forced text with its log-probabilities.

        Args:
            logits: float32, (tokens, vocabulary); row i predicts token i of the text.
        """
        import torch

        return self.scored(torch.log_softmax(logits, dim=-1)[range(len(self.ids)), self.ids].tolist())

    def scored(self, logprobs: Sequence[float]) -> Generation:
        """Return the forced text with its log-probabilities, one a token.

        Raises:
            AgentError: one of them is no finite number.
        """
        for logprob in logprobs:
            _require_finite(logprob)
        stop = self.request.stops[0]  # The action's closing tag, which the forced text ends with.
        text = (self.request.forced or "").removesuffix(stop)
        return Generation(text, stop, 0, ids=tuple(self.ids), logprobs=tuple(logprobs))

    def append_token(self, logits: Any) -> Generation | None:
        """Choose the next token; return all that was generated where this token ends it, else None.

        Args:
            logits: float32, (vocabulary,).
        """
        return self.append_chosen(*self._sampler.choose(logits))

    def append_sampled(self, rows: TopRows, row: int) -> Generation | None:
        """Choose the next token from a row's candidates; return what `append_token` returns."""
        return self.append_chosen(*self._sampler.choose_from(rows, row))

    @property
    def temperature(self) -> float:
        """Return the temperature; 0 is greedy."""
        return self._sampler.temperature

    @property
    def greedy(self) -> bool:
        """Return whether the next token is the most probable one."""
        return self._sampler.greedy

    def append_chosen(self, token: int, logprob: float) -> Generation | None:
        """Append a token that was chosen; return all that was generated where it ends the continuation, else None.

        Args:
            token: its id.
            logprob: natural logarithm of its probability at temperature 1.

        Raises:
            AgentError: it is no finite number.
        """
        _require_finite(logprob)
        self._logprobs.append(logprob)
        text = self._text_after_token[-1] if self._text_after_token else ""
        stop = "eos" if token in self._end_ids else None
        if stop is None:
            self.ids.append(token)
            text = self._text.append(token)
            self._text_after_token.append(text)
            found = first_stop(text, self.request.stops, self.request.one_line)
            if found is not None:
                text, stop = found
            elif self.tokens_left == 0:
                stop = "budget"
        if stop is None:
            return None
        return Generation(
            text,
            stop,
            tokens=len(self._logprobs),
            text_after_token=tuple(self._text_after_token),
            ids=tuple(self.ids),
            logprobs=tuple(self._logprobs),
            eos_id=token if stop == "eos" else None,
        )
