"""What a run asks first, and how `--show-prompt` has it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.hf.tokenizer import load_tokenizer
from cotbench.agents.prompt_preview import preview
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.cli import run_cli
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from cotbench.runs.first_queries import first_queries
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.runner import run
from tests.conftest import needs_hf

EXAMPLES = [{"observation": "Task: wait.", "turns": [{"trace": "Nothing to do.", "action": "wait"}]}]


class _Asked:
    """Keeps what it is asked, and always looks."""

    name = "asked"
    uses_elicitation = True

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.queries += queries
        return [Decision("look") for _ in queries]

    def close(self) -> None:
        pass


def _config(**changes: Any) -> RunConfig:
    return RunConfig(**{"agent": "hf:tiny", "tasks": ("alfworld/gen/pick/0",), "max_steps": 1, **changes})


@pytest.mark.parametrize("mode", ["prompt", "cot", "both"])
def test_the_first_queries_are_those_that_a_run_begins_with(tmp_path: Path, mode: str) -> None:
    agent = _Asked()
    config = _config(mode=mode, elicitation=Elicitation(show_admissible=True, examples=EXAMPLES))
    run(config, out=tmp_path / "run", agent=agent)
    begun = [query for query in agent.queries if query.step == 0]
    found = first_queries(make_plan(config))
    assert [query.mode for query in found] == (["prompt", "cot"] if mode == "both" else [mode])
    assert all(query in begun for query in found)


@needs_hf
def test_a_preview_of_a_model_is_the_prompt_that_its_tokenizer_makes() -> None:
    prompt, cot = first_queries(make_plan(_config(elicitation=Elicitation(prompt_action="empty", examples=EXAMPLES))))
    chat = Chat(load_tokenizer("tiny")[0])
    for query, opening in ((prompt, "<think></think>\n<action>"), (cot, "<think>")):
        one = preview("hf:tiny", query)
        assert one.opening == opening
        assert one.rendered == chat.prompt_text(one.messages) + opening
        assert one.prompt_tokens == len(chat.prompt_ids(one.messages))
    ranked = first_queries(make_plan(_config(mode="prompt", elicitation=Elicitation(prompt_action="ranked"))))[0]
    one = preview("hf:tiny", ranked)
    assert (one.opening, one.candidates) == ("<action>", len(ranked.admissible_actions or ()))


def test_show_prompt_prints_and_plays_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("system.txt").write_text("Be quick.", "utf-8")
    words = ["run", "--agent", "openai:model@http://127.0.0.1:9/v1", "--limit", "1", "--show-prompt"]
    assert run_cli([*words, "--system-prompt", "system.txt", "--elicitation-style", "template", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["mode"] for one in shown] == ["prompt", "cot"]
    assert all(dict(one["messages"])["system"].startswith("Be quick.\n\n") for one in shown)
    assert [one["opening"] for one in shown] == ["", ""] and shown[0]["rendered"] is None
    assert run_cli(words) == 0
    text = capsys.readouterr().out
    assert text.count("--- system\n") == 2 and text.count("here the model begins to generate") == 2
    assert run_cli(["run", "--agent", "random", "--show-prompt"]) == 2
    assert "agent random is sent no prompt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["system.txt"]
