"""Preference pairs in files: what is written is read again, and what is none is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import make_examples
from cotbench.baselines.data.preference_pair import PAIRS_JSONL, PreferencePair, read_pairs, write_pairs
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from tests.baselines.conftest import ENV
from tests.baselines.preference_pairs import pairs_of


@pytest.fixture
def pairs(some_played: list[Demonstration], some_words: Any) -> list[PreferencePair]:
    return pairs_of(some_played, some_words)


def test_what_is_written_is_read_again(pairs: list[PreferencePair], tmp_path: Path) -> None:
    write_pairs(tmp_path / PAIRS_JSONL, pairs)
    assert read_pairs(tmp_path) == read_pairs(tmp_path / PAIRS_JSONL) == pairs


def test_the_chosen_example_is_that_of_sft_without_what_ends_the_turn(
    pairs: list[PreferencePair], some_played: list[Demonstration], some_words: Any
) -> None:
    chat = Chat(some_words)
    examples = {one.id: one for one in make_examples(some_played, chat, {ENV: Elicitation.for_env(ENV)}, context=4096).flat}
    for pair in pairs:
        chosen, rejected = pair.examples()
        sft = examples[pair.id]
        assert chosen.id == rejected.id == sft.id and chosen.prompt == rejected.prompt == sft.prompt
        assert (*chosen.answer, *chat.turn_end) == sft.answer
        assert [span.label for span in chosen.spans] == [span.label for span in sft.spans]
        assert chosen.part("action") == sft.part("action") and chosen.part("trace") == sft.part("trace")


def test_a_rejected_action_that_is_not_worse_makes_no_pair(pairs: list[PreferencePair]) -> None:
    fields = pairs[0].model_dump()
    fields["rejected"]["steps_to_go"] = fields["chosen"]["steps_to_go"]
    with pytest.raises(ValidationError, match="must leave more steps to go"):
        PreferencePair.model_validate(fields)


def test_a_scored_task_is_refused_where_it_is_written_and_where_it_is_read(pairs: list[PreferencePair], tmp_path: Path) -> None:
    from cotbench.envs.registry import env_entry

    scored = env_entry(ENV).source().tasks("paper", "id")[0]
    bad = pairs[0].model_copy(update={"task": scored})
    with pytest.raises(UsageError, match=f"{scored} is scored"):
        write_pairs(tmp_path / "bad.jsonl", [bad])
    (tmp_path / "bad.jsonl").write_text(bad.model_dump_json() + "\n")
    with pytest.raises(UsageError, match=f"{scored} is scored"):
        read_pairs(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pairs"),
        ("{", "f.jsonl:1 is not JSON"),
        ("{}", "f.jsonl:1 is no preference pair (env: Field required)"),
    ],
)
def test_a_file_without_pairs_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(text)
    with pytest.raises(UsageError) as error:
        read_pairs(tmp_path / "f.jsonl")
    assert message in str(error.value)


def test_a_folder_without_pairs_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a pairs folder"):
        read_pairs(tmp_path)
    with pytest.raises(UsageError, match="no file or folder"):
        read_pairs(tmp_path / "nothing")
