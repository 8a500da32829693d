"""Demonstrations as token ids and labels of one model, for trainers of others. Invariant: a row is an example as recipe `sft`
trains on it, made by the same code; the labels are the ids of the answer, and -100 on the prompt.

A chat in `messages` is rendered by the trainer's template, and some templates rewrite past reasoning or end a turn otherwise;
these ids are what evaluation asks with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.agents.hf.tokenizer import load_tokenizer
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Example, Examples, make_examples
from cotbench.baselines.data.parquet import check_suffix, write_rows
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.atomic_file import write_atomically

TOKENS_JSONL = "tokens.jsonl"
TOKENS_PARQUET = "tokens.parquet"
COLUMNS: Mapping[str, Any] = {"task": str, "step": int, "input_ids": list[int], "labels": list[int]}
"""Columns of a row, with the types of their values."""

_IGNORED = -100
"""The label of a token that is in no loss; torch's and transformers' default."""


@dataclass(frozen=True, slots=True)
class TokenEncoder:
    """A model's tokenizer with its template; the weights are not loaded.

    Attributes:
        model: hub name, alias, local folder, smollm2 or tiny.
        context: the longest sequence that the model takes, in tokens.
    """

    model: str
    chat: Chat
    context: int

    def encode(self, demonstrations: Sequence[Demonstration], elicitations: Mapping[str, Elicitation]) -> Examples:
        """Return an example for each decision that has a trace.

        Args:
            demonstrations: what is encoded.
            elicitations: environment -> the elicitation that evaluation will use.

        Raises:
            UsageError: none is left.
        """
        examples = make_examples(demonstrations, self.chat, elicitations, context=self.context)
        if not examples.episodes:
            raise UsageError(
                f"no example is left of {len(demonstrations)} demonstrations: {len(examples.too_long)} decisions are longer "
                f"than the {self.context} tokens of {self.model}, {examples.without_trace} have no trace"
            )
        return examples


def open_encoder(model: str) -> TokenEncoder:
    """Return the encoder of a model.

    Args:
        model: hub name, alias, local folder, smollm2 or tiny.

    Raises:
        AgentError: it has no tokenizer that can be loaded.
        MissingExtraError: transformers is not installed.
    """
    tokenizer, context = load_tokenizer(model)
    return TokenEncoder(model, Chat(tokenizer), context)


def token_row(example: Example) -> dict[str, Any]:
    """Return an example as a row: `task`, `step`, `input_ids` and `labels`, of the same length."""
    labels = [*[_IGNORED] * len(example.prompt), *example.answer]
    return {"task": example.task, "step": example.step, "input_ids": list(example.ids), "labels": labels}


def write_tokens(path: Path, examples: Iterable[Example]) -> None:
    """Write a .jsonl or a .parquet file, as the suffix says, atomically.

    Args:
        path: the file, replaced where it exists.
        examples: what is written, in this order.

    Raises:
        UsageError: the suffix is another one.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
    """
    check_suffix(path)
    rows = map(token_row, examples)
    if path.suffix == ".parquet":
        write_rows(path, rows, _columns)
    else:
        write_atomically(path, (json.dumps(row) + "\n" for row in rows))


def _columns(arrow: Any) -> dict[str, Any]:
    ids = arrow.list_(arrow.int64())
    return {"task": arrow.string(), "step": arrow.int64(), "input_ids": ids, "labels": ids}
