"""Demonstrations: what a run's queries held is what is trained on; files are read back as they were; nothing scored leaks."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.expert import ExpertAgent
from cotbench.baselines.data.demonstration import (
    Demonstration,
    answer_text,
    from_episode,
    read_demonstrations,
    write_demonstrations,
    write_jsonl,
    write_parquet,
)
from cotbench.baselines.data.scored_tasks import check_tasks, check_trainable
from cotbench.envs.bfcl.tasks import BFCLTasks, scenario
from cotbench.envs.registry import Instructions, env_entry, env_names
from cotbench.errors import MissingExtraError, UsageError
from cotbench.installation import install_command
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.query import Decision, Query
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_datasets, needs_pyarrow

TASKS = ("alfworld/gen/heat/1008", "alfworld/gen/pick/1511")
ENV = "alfworld-gen"


class Spy(ExpertAgent):
    """The expert, whose second step of each episode has no trace; its queries are kept."""

    def __init__(self) -> None:
        self.seen: list[Query] = []

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.seen += queries
        return [
            Decision(decision.action, None if query.step == 1 else decision.trace)
            for query, decision in zip(queries, super().decide(queries), strict=True)
        ]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spy, list[Episode]]:
    spy = Spy()
    config = RunConfig(agent="spy", env=ENV, split="train", mode="cot", tasks=TASKS)
    return spy, run(config, out=tmp_path_factory.mktemp("run"), agent=spy).records


@pytest.fixture(scope="module")
def demonstrations(played: tuple[Spy, list[Episode]]) -> list[Demonstration]:
    imported = Demonstration(
        observations=("Ünïcode\u2028and\nlines", "two"),
        actions=("a", "b\nc"),
        traces=("because", None),
        instructions=Instructions("Be kind.", ("look", "go")),
        functions='{"name": "f"}',
    )
    return [*(from_episode(episode, ENV, "spy") for episode in played[1]), imported]


def test_a_dialogue_is_the_one_that_the_query_held(
    played: tuple[Spy, list[Episode]], demonstrations: list[Demonstration]
) -> None:
    by_task = {one.task: one for one in demonstrations}
    assert len(played[0].seen) == sum(len(by_task[task].actions) for task in TASKS) > 8
    for query in played[0].seen:
        assert by_task[query.task].dialogue(query.step) == query.dialogue
    for task in TASKS:
        silent = [trace is None for trace in by_task[task].traces]
        assert silent == [step == 1 for step in range(len(silent))]


def test_messages_are_the_prompt_and_the_answers(demonstrations: list[Demonstration]) -> None:
    one = demonstrations[0]
    chat = one.messages()
    # Up to the last answer the very prompt that is shown with past traces, but for how past answers are written.
    shown = Elicitation.for_env(ENV).messages(one.dialogue(len(one.actions) - 1), "cot")
    assert [message for message in chat[:-1] if message.role != "assistant"] == [m for m in shown if m.role != "assistant"]
    assert [message.role for message in chat] == ["system", *["user", "assistant"] * len(one.actions)]
    assert chat[2] == Message("assistant", f"<think>{one.traces[0]}</think>\n<action>{one.actions[0]}</action>")
    assert chat[4] == Message("assistant", f"<action>{one.actions[1]}</action>")
    assert chat[-1].content == answer_text(one.actions[-1], one.traces[-1])


def test_jsonl_is_read_back_as_it_was(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "traces.jsonl", demonstrations)
    for place in (tmp_path, tmp_path / "traces.jsonl"):
        read = read_demonstrations(place)
        assert read == demonstrations
    write_jsonl(tmp_path / "again.jsonl", read)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "traces.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.jsonl", "traces.jsonl"]
    first = json.loads((tmp_path / "traces.jsonl").read_bytes().split(b"\n")[0])
    assert list(first) == ["messages", *Demonstration.model_fields]


@needs_pyarrow
def test_parquet_is_read_back_as_it_was(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    for some in (demonstrations, demonstrations[:1], demonstrations[2:], demonstrations * 2):
        write_parquet(tmp_path / "traces.parquet", some)
        assert read_demonstrations(tmp_path) == some
        assert [path.name for path in tmp_path.iterdir()] == ["traces.parquet"]
    write_demonstrations(tmp_path / "x.jsonl", read_demonstrations(tmp_path))
    write_jsonl(tmp_path / "y.jsonl", demonstrations * 2)
    assert (tmp_path / "x.jsonl").read_bytes() == (tmp_path / "y.jsonl").read_bytes()


@needs_pyarrow
@needs_datasets
def test_datasets_reads_both_formats(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "traces.jsonl", demonstrations)
    write_parquet(tmp_path / "traces.parquet", demonstrations)
    code = (
        "import datasets, json, sys\n"
        "for kind, name in (('json', 'traces.jsonl'), ('parquet', 'traces.parquet')):\n"
        "    read = datasets.load_dataset(kind, data_files=name, cache_dir='cache')['train']\n"
        "    print(json.dumps([dict(row) for row in read]))\n"
        "read.to_parquet('by_datasets.parquet')\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=offline
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        rows = json.loads(line)
        assert [row["messages"] for row in rows] == [[m._asdict() for m in one.messages()] for one in demonstrations]
        assert [tuple(row["traces"]) for row in rows] == [one.traces for one in demonstrations]
    assert read_demonstrations(tmp_path / "by_datasets.parquet") == demonstrations


def test_messages_alone_are_imported(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    path = tmp_path / "foreign.jsonl"
    rows = [{"messages": [message._asdict() for message in one.messages()]} for one in demonstrations]
    rows[0]["messages"].append({"role": "user", "content": "You won."})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    told = env_entry(ENV).instructions()
    for ours, read in zip(demonstrations, read_demonstrations(path), strict=True):
        assert (read.observations, read.actions, read.traces) == (ours.observations, ours.actions, ours.traces)
        assert read.env == read.task == "" and read.success
        system = read.messages()[0].content
        assert system == ours.messages()[0].content, "the request for tags is said once"
    assert read_demonstrations(path)[0].dialogue(0).instructions.text.startswith(told.text)


def test_an_import_keeps_the_names_that_it_finds(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "<think>t</think><action>a</action>"}]
    path = tmp_path / "f.jsonl"
    rows = [{"messages": chat, "task": "alfworld/gen/pick/0", "score": 3}, {"messages": chat, "success": False}]
    path.write_text("\n".join(map(json.dumps, rows)))
    (read,) = read_demonstrations(path)
    assert (read.traces, read.actions, read.dialogue(0).instructions.text) == (("t",), ("a",), "")
    with pytest.raises(UsageError, match=r"alfworld/gen/pick/0 is scored \(alfworld-gen paper/id\)"):
        check_trainable([read])


def _chat(*turns: tuple[str, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


LINE = '{"observations": ["o"], "actions": ["a"], "traces": ["t"]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "f.jsonl is empty: make demonstrations with cotbench traces"),
        ("\n\n", "f.jsonl is empty"),
        (LINE + ', "success": false}', "f.jsonl holds unsuccessful episodes only, 1 of them"),
        (LINE + "}\n{", "f.jsonl:2 is not JSON"),
        ("\xff", "f.jsonl:1 is not JSON"),
        ("[1]", "f.jsonl:1 is not an object with `messages`"),
        ('{"prompt": "p", "completion": "c"}', "f.jsonl:1 is not a conversation: it has prompt, completion and no `messages`"),
        ('{"messages": []}', "f.jsonl:1 is not a conversation: it has no messages"),
        ('{"messages": ["hello"]}', "message 1 is not a text of system, user or assistant"),
        (_chat(("user", "u"), ("tool", "t")), "message 2 is not a text of"),
        (_chat(("user", {"text": "u"})), "message 1 is not a text of"),
        (_chat(("system", "s")), "user and assistant must take turns"),
        (_chat(("user", "u")), "user and assistant must take turns"),
        (_chat(("assistant", "<action>a</action>")), "user and assistant must take turns"),
        (_chat(("user", "u"), ("user", "u"), ("assistant", "<action>a</action>")), "must take turns"),
        (
            _chat(("user", "a recipe?"), ("assistant", "Sure! Take an egg.")),
            "f.jsonl:1 is not a conversation with actions: answer 1",
        ),
        (_chat(("user", "u"), ("assistant", "<action> </action>")), "answer 1 has none"),
        (LINE + ', "colour": "red"}', "f.jsonl:1 is not a demonstration (colour: Extra inputs are not permitted)"),
        (LINE + ', "env": "alfwrld"}', "f.jsonl:1 is of an unknown environment 'alfwrld'"),
        ('{"observations": [], "actions": [], "traces": []}', "at least one"),
        ('{"observations": ["o"], "actions": ["a"], "traces": []}', "as many observations as actions"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError) as error:
        read_demonstrations(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        read_demonstrations(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"is not a traces folder: it has no traces.jsonl; make one with"):
        read_demonstrations(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(UsageError, match="finish it with: cotbench traces --resume"):
        read_demonstrations(tmp_path)
    (tmp_path / "f.csv").touch()
    with pytest.raises(UsageError, match=r"neither a traces folder nor a .jsonl or .parquet file"):
        read_demonstrations(tmp_path / "f.csv")
    with pytest.raises(UsageError, match="name it so"):
        write_demonstrations(tmp_path / "g.csv", [])


@needs_pyarrow
def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_text("PAR1 no")
    with pytest.raises(UsageError, match=r"f.parquet is not a Parquet file \("):
        read_demonstrations(path)


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("train"))):
        write_parquet(tmp_path / "f.parquet", [])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    write_jsonl(path, demonstrations)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_jsonl(path, [*demonstrations[:1], None])  # type: ignore[list-item]
    assert path.read_bytes() == before and [other.name for other in tmp_path.iterdir()] == ["f.jsonl"]


@pytest.mark.parametrize("env", env_names())
def test_no_scored_task_passes_and_every_training_task_does(env: str) -> None:
    source = env_entry(env).source()
    check_tasks(source.tasks("paper", "train"))
    if "train" in source.schemes().get("official", ()):
        dev = set(source.tasks("paper", "dev"))
        check_tasks([task for task in source.tasks("official", "train") if task not in dev])
    training = set(source.tasks("paper", "train"))
    for scheme, splits in source.schemes().items():
        for split in splits:
            if split != "train":
                for task in [task for task in source.tasks(scheme, split) if task not in training][::37]:
                    with pytest.raises(UsageError, match=rf"is (scored|for tuning) \({env} (paper|official)/"):
                        check_tasks([task])


@pytest.mark.parametrize("env", env_names())
def test_what_is_tuned_on_is_not_trained_on(env: str) -> None:
    for task in env_entry(env).source().tasks("paper", "dev")[::20]:
        with pytest.raises(UsageError, match=rf"{task} is for tuning \({env} paper/dev.*\): it must not be trained on"):
            check_tasks([task])


def test_no_scenario_of_a_scored_split_of_bfcl_passes() -> None:
    trained = {scenario(task) for task in BFCLTasks().tasks("paper", "train")}
    for split in ("dev", "id", "ood", "ood_miss", "ood_domain"):
        assert not trained & {scenario(task) for task in BFCLTasks().tasks("paper", split)}
    with pytest.raises(UsageError, match=r"multi_turn_miss_func_150 is scored \(bfcl paper/ood_domain has its scenario\)"):
        check_tasks(["bfcl/multi_turn_base_1", "bfcl/multi_turn_miss_func_150"])
    # 124 is linked to 120: the same data in other words.
    with pytest.raises(UsageError, match=r"multi_turn_long_context_124 is scored \(bfcl paper/id has its scenario\)"):
        check_tasks(["bfcl/multi_turn_long_context_124"])
    with pytest.raises(UsageError, match=r"miss_func_9 is for tuning \(bfcl paper/dev has its scenario\)"):
        check_tasks(["bfcl/multi_turn_miss_func_9"])
    with pytest.raises(UsageError, match=r"live_simple_0-0-0 is scored \(bfcl official/live_simple\)"):
        check_tasks(["bfcl/live_simple_0-0-0"])


def test_generated_games_outside_every_split_may_be_trained_on() -> None:
    check_tasks(["alfworld/gen/pick/500", "alfworld/gen/cool/5000", "somewhere/else", ""])
