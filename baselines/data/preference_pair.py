"""A preference pair: two answers at one state, the first of which is preferred. Invariant: both answers continue the same
token ids; each is stored piece by piece with what the piece is, as it was encoded or generated, so nothing in it is tokenized
again or searched for; the rejected action leaves more steps to go than the chosen one, it is not merely another one.

Both answers end with the closing tag of the action: evaluation reads no further, and a sampled answer stops there, so a turn's
end behind the chosen answer alone would stand on one side of the margin.

A line of a file is a pair as JSON. A folder of `cotbench pairs` holds `pairs.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotbench.agents.tokenization.token_ids import Label
from cotbench.baselines.data.examples import Example, Span, example_id
from cotbench.baselines.data.scored_tasks import check_tasks
from cotbench.errors import UsageError
from cotbench.json_text import parse_json
from cotbench.runs.atomic_file import write_atomically

PAIRS_JSONL = "pairs.jsonl"

_LABELS: tuple[Label, ...] = ("think_open", "trace", "think_close", "action_open", "action", "closing")
"""The pieces of an answer, in order."""

_STRICT = ConfigDict(frozen=True, extra="forbid")


class AnswerPiece(BaseModel):
    """Adjacent tokens of an answer that are of one kind.

    Attributes:
        label: trace, action, or one of the tags around them; "closing" is the closing tag of the action.
        ids: (tokens,) token ids.
    """

    model_config = _STRICT

    label: Label
    ids: tuple[int, ...]


class PairAnswer(BaseModel):
    """One of the two answers of a pair.

    Attributes:
        author: the spec of the agent that wrote it.
        trace: the reasoning, as it stands between its tags.
        action: the action as it was worded.
        steps_to_go: how many steps whoever takes over after the action needs to win the task; None where the action loses it.
        pieces: the answer's tokens, a piece for each label of an answer in order.
    """

    model_config = _STRICT

    author: str
    trace: str
    action: str
    steps_to_go: int | None = Field(ge=0)
    pieces: tuple[AnswerPiece, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if tuple(piece.label for piece in self.pieces) != _LABELS:
            raise ValueError(f"the pieces of an answer are {', '.join(_LABELS)}, in this order")
        return self

    @property
    def ids(self) -> tuple[int, ...]:
        """(tokens,) token ids of the whole answer."""
        return tuple(id_ for piece in self.pieces for id_ in piece.ids)

    def part(self, label: Label) -> tuple[int, ...]:
        """Return the token ids of the piece with this label."""
        return next(piece.ids for piece in self.pieces if piece.label == label)


class PreferencePair(BaseModel):
    """Two answers at one state of a demonstration.

    Attributes:
        env: the environment's name.
        task: the task id; never one that is scored.
        step: which decision of the demonstration, counted from 0.
        take: how many demonstrations of the same task came before.
        elicitation: fingerprint of the elicitation by which evaluation asks, and by which both answers are encoded.
        prompt_ids: (tokens,) token ids of the prompt that both answers continue.
        chosen: the teacher's answer.
        rejected: the answer that was sampled from the model.
    """

    model_config = _STRICT

    env: str
    task: str
    step: int = Field(ge=0)
    take: int = Field(0, ge=0)
    elicitation: str
    prompt_ids: tuple[int, ...] = Field(min_length=1)
    chosen: PairAnswer
    rejected: PairAnswer

    @model_validator(mode="after")
    def _worse(self) -> Self:
        own, other = self.chosen.steps_to_go, self.rejected.steps_to_go
        if own is None or (other is not None and own >= other):
            raise ValueError("the rejected action must leave more steps to go than the chosen one")
        return self

    @property
    def id(self) -> str:
        """Identifier of the pair within its data: that of the decision."""
        return example_id(self.task, self.step, self.take)

    @property
    def identical_traces(self) -> bool:
        """Whether both answers have the same trace tokens: without the actions nothing is left to prefer."""
        return self.chosen.part("trace") == self.rejected.part("trace")

    def examples(self) -> tuple[Example, Example]:
        """Return the chosen and the rejected answer as examples; they share the pair's identifier, and so its mask."""
        return self._example(self.chosen), self._example(self.rejected)

    def _example(self, answer: PairAnswer) -> Example:
        end = len(self.prompt_ids)
        spans = [Span("prompt", 0, end)]
        for piece in answer.pieces:
            spans.append(Span(piece.label, end, end + len(piece.ids)))
            end += len(piece.ids)
        return Example(self.task, self.step, (*self.prompt_ids, *answer.ids), tuple(spans), self.take)


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> None:
    """Write one pair a line, atomically.

    Args:
        path: the .jsonl file, replaced where it exists.
        pairs: what is written, in this order.

    Raises:
        UsageError: a task that is scored or tuned on.
    """
    pairs = list(pairs)
    check_tasks(pair.task for pair in pairs)
    write_atomically(path, (pair.model_dump_json() + "\n" for pair in pairs))


def read_pairs(path: Path) -> list[PreferencePair]:
    """Return the pairs of a folder of `cotbench pairs`, or of a .jsonl file.

    Args:
        path: the folder or the file.

    Raises:
        UsageError: no such file, a line that is no pair, two pairs of one state, a task that is scored, or no pairs at all.
    """
    file = _file_of(path)
    pairs = [_read(line, f"{file}:{number}") for number, line in enumerate(file.read_bytes().splitlines(), 1) if line.strip()]
    if not pairs:
        raise UsageError(f"{file} holds no pairs: sample more answers a state, or from an earlier checkpoint (cotbench pairs)")
    check_tasks(pair.task for pair in pairs)
    check_states([pairs])
    return pairs


def check_states(files: Sequence[Sequence[PreferencePair]]) -> None:
    """Refuse two pairs of one state, which would share one mask.

    Args:
        files: the pairs of each file.

    Raises:
        UsageError: names the state.
    """
    seen: set[str] = set()
    for pair in (pair for pairs in files for pair in pairs):
        if pair.id in seen:
            raise UsageError(f"two pairs are of the state {pair.id}: keep one of them")
        seen.add(pair.id)


def _file_of(path: Path) -> Path:
    if path.is_dir():
        if not (path / PAIRS_JSONL).is_file():
            raise UsageError(f"{path} is not a pairs folder: it has no {PAIRS_JSONL}; make one with cotbench pairs --out DIR")
        return path / PAIRS_JSONL
    if not path.is_file():
        raise UsageError(f"no file or folder {path}: make pairs with cotbench pairs --out {path}")
    if path.suffix != ".jsonl":
        raise UsageError(f"{path} is neither a pairs folder nor a .jsonl file: give one of these")
    return path


def _read(line: bytes, place: str) -> PreferencePair:
    try:
        return PreferencePair.model_validate(parse_json(line), strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "whole"
        raise UsageError(f"{place} is no preference pair ({name}: {first['msg']}): fix or remove it") from error
    except (json.JSONDecodeError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{place} is not JSON: write one preference pair a line, or remove it") from error
