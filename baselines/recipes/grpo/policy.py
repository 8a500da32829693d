"""The model in training as an agent that plays. Invariant: an answer is of the weights as they were at the last `refresh`, and
between two calls the model can be trained.

`EnginePolicy` answers through the engine of evaluation, in memory: between two batches the weights change, so it forgets its
caches, and the model has the attention of the training again. `served_policy` hands the weights to a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from cotbench.agents.base import StreamingAgent
from cotbench.agents.hf.agent import HFAgent
from cotbench.baselines.training.model import TrainableModel
from cotbench.prompting.elicitation import Elicitation

LIVE = "hf:live"
"""Name of the agent in the runs that are planned for a training."""


class Policy(Protocol):
    """A model in training, as an agent."""

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error where the model cannot be asked this way.

        Args:
            elicitation: of the rollouts.
        """

    def refresh(self) -> None:
        """Answer with the weights as they are now; all processes of a training call it together."""

    def answering(self) -> AbstractContextManager[StreamingAgent]:
        """Return a context with the agent, for as long as the weights stay as they are."""

    def close(self) -> None:
        """Free what answers; the model stays as it is."""


class EnginePolicy:
    """The model in memory.

    Args:
        trainable: the model; between two calls it has the attention of the training.
    """

    def __init__(self, trainable: TrainableModel) -> None:
        self._model = trainable.model.get_base_model() if hasattr(trainable.model, "get_base_model") else trainable.model
        self._own, self._training = trainable.own_attention, str(self._model.config._attn_implementation)
        self._model.set_attn_implementation(self._own)
        try:
            self._agent = HFAgent.from_model(self._model, trainable.tokenizer, name=LIVE)
        finally:
            self._model.set_attn_implementation(self._training)

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error where the model cannot be asked this way; see `HFAgent`."""
        self._agent.require(elicitation)

    def refresh(self) -> None:
        """Forget the keys and values, which are of other weights."""
        self._agent.clear_cache()

    @contextmanager
    def answering(self) -> Iterator[StreamingAgent]:
        """Give the model the attention that it came with, from which the engine goes to its own and back."""
        self._agent.clear_cache()
        self._model.set_attn_implementation(self._own)
        try:
            yield self._agent
        finally:
            self._agent.clear_cache()
            self._model.set_attn_implementation(self._training)

    def close(self) -> None:
        """Forget the keys and values; the model has the attention of the training."""
        with self.answering():
            pass
