"""What a model wrote is data: nothing in it is run, nothing takes long, nothing raises."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs.bfcl import calls, data
from cotbench.envs.bfcl.env import BFCLEnv
from tests.conftest import needs_bfcl
from tests.envs.bfcl_corruption import damaged_call

pytestmark = needs_bfcl

ATTACKS = (
    "[ls(a=open('f','w').write('x') + 0)]",
    "[open(file='f', mode='w')]",
    "[__import__('os').system('touch f')]",
    "__import__('os').system('touch f')",
    "[ls(a=__import__('os').system('touch f'))]",
    "[cd.__globals__['os'].system('touch f')]",
    "[ls.__class__.__base__.__subclasses__()]",
    "[__init__()]",
    "[_load_scenario(scenario={})]",
    '[exec(code=\'open("f", "w")\')]',
    "[eval(source='1')]",
    "[setattr(name='x')]",
    "[globals()]",
    "[ls(a=(lambda: open('f', 'w'))())]",
    "[ls(a=[open('f', 'w') for _ in range(3)])]",
    "[ls(a={open('f', 'w') for _ in 'x'})]",
    "[ls(*[1, 2])]",
    "[ls(**{'a': True})]",
    '[ls(a=f\'{open("f", "w")}\')]',
    "[(x := ls())]",
    "[ls() if open('f', 'w') else pwd()]",
    "[ls(a='%s' % open('f', 'w'))]",
    "[echo(content='x', file_name='/../../f')]",
    "[multi_turn_checker(valid=True)]",
    "[ls(), import os; os.system('touch f')]",
    "[ls()]; open('f', 'w')",
    "[power(base=10, exponent=20000000)]",
    "[power(base=10, exponent=power(base=10, exponent=9))]",
    "[power(base=9**9**9, exponent=1)]",
    "[ls(a='x' * 10**10)]",
    "[ls(a=[0] * 10**10)]",
    "[ls(a=10**10**10)]",
    "[ls(a=" + "9" * 100_000 + ")]",
    "[ls(a=1e999999)]",
    "[" * 1_000,
    "[" * 100_000,
    "[" * 1_000 + "]" * 1_000,
    "[ls(a=" + "(" * 1_000 + "1" + ")" * 1_000 + ")]",
    "ls(a=" * 500 + "1" + ")" * 500,
    "[" + "ls(a=" * 5_000 + "1" + ")" * 5_000 + "]",
    "[ls(a=" + "-" * 10_000 + "1)]",
    "[" + ", ".join(["ls()"] * 5_000) + "]",
    "x" * 10_000_000,
    "[ls(a='" + "x" * 10_000_000 + "')]",
    "[{" * 5_000,
    '[{"name": "ls", "arguments": ' + '{"a": ' * 2_000 + "1" + "}" * 2_000 + "}]",
    '[{"name": "__import__", "arguments": {"name": "os"}}]',
    '[{"name": "ls(a=open(1))", "arguments": {}}]',
    "[ls(a='\x00')]",
    "\x00",
    "[ls(\x00)]",
    "[ls(a='\ud800')]",
    "\ud800",
    "[ls(a=b'x')]",
    "[ls(a=...)]",
    "[ls(a=1j)]",
    "[ｌｓ(a=True)]",
    "[ls(a=True, a=False)]",
    "[cd(folder='../../../../etc'), cat(file_name='passwd')]",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def env(folder: Path) -> Iterator[BFCLEnv]:
    made = BFCLEnv()
    yield made
    made.close()


@pytest.mark.parametrize("task", ["bfcl/multi_turn_base_1", "bfcl/multi_turn_base_110", "bfcl/simple_python_0"])
def test_no_attack_works_lasts_or_raises(env: BFCLEnv, folder: Path, task: str) -> None:
    longest = (0.0, "")
    for attack in ATTACKS:
        env.reset(options={"task": task})
        start = time.monotonic()
        *_, info = env.step(attack)
        longest = max(longest, (time.monotonic() - start, attack[:60]))
        assert not info["success"], attack[:100]
        assert info["restarts"] == 0, attack[:100]
    print(f"longest: {longest}")
    assert longest[0] < 10  # Of the processor's time it is bounded to one second; a busy machine has its own clock.
    assert list(folder.iterdir()) == []


def test_an_endless_call_is_an_error_and_the_episode_goes_on() -> None:
    env = BFCLEnv(request=["expert_action"])
    try:
        _, info = env.reset(options={"task": "bfcl/multi_turn_base_1"})
        expected = info["expert_action"]
        observation, *_, info = env.step("[power(base=10, exponent=20000000)]")
        assert observation.startswith("Error during execution") and info["invalid_action"]
        _, info = env.reset(options={"task": "bfcl/multi_turn_base_1"})
        assert info["expert_action"] == expected
        ended = False
        while not ended:
            *_, ended, _, info = env.step(info["expert_action"])
        assert info["success"]
    finally:
        env.close()


_TOKENS = (
    "[", "]", "(", ")", "{", "}", ",", "=", ":", "'", '"', ".", "*", "**", "-", "+", "\\", "\n", " ", "\x00",
    "ls", "cd", "pwd", "power", "base", "exponent", "folder", "a", "True", "None", "1", "2.5", "1e308", "9" * 400,
    "'x'", '"name"', '"arguments"', "lambda", "for x in", "if", "else", "__import__", "open", "os.system", "self",
    "self._root", "f'{x}'", "b'x'", "é", "\ud800", "<action>", "```", "import os", ":=", "await ",
    "mean(numbers=[1, 2])", "ls(a=True)", "cd(folder='..')", "rm(file_name='*')",
)  # fmt: skip


def _soup(rng: random.Random) -> str:
    return "".join(rng.choice(_TOKENS) for _ in range(rng.randrange(1, 25)))


def _fuzzed(rng: random.Random, truths: list[str]) -> str:
    match rng.randrange(4):
        case 0:
            return _soup(rng)
        case 1:
            return f"[{damaged_call(rng.choice(truths), rng)}]"
        case 2:
            text = rng.choice(truths)
            place = rng.randrange(len(text))
            return f"[{text[:place]}{_soup(rng)[:20]}{text[place + rng.randrange(3) :]}]"
    return f"[{rng.choice(truths)}, {_soup(rng)}]"


@pytest.mark.parametrize("actions", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_fuzzed_actions_do_no_harm(env: BFCLEnv, folder: Path, actions: int) -> None:
    rng = random.Random(actions)
    tasks = [task for category in data.MULTI_TURN for task in data.ids(category)]
    truths = [text for task in tasks[:200] for turn in data.ground_truth(task) for text in turn]
    longest, ended = (0.0, ""), True
    for _ in range(actions):
        if ended:
            env.reset(options={"task": rng.choice(tasks)})
        action = _fuzzed(rng, truths)
        start = time.monotonic()
        *_, terminated, truncated, info = env.step(action)
        longest = max(longest, (time.monotonic() - start, action))
        ended = terminated or truncated
        assert info["restarts"] == 0
    print(f"{actions} actions, longest {longest}")
    assert longest[0] < 10
    assert list(folder.iterdir()) == []


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_TOKENS), max_size=20).map("".join)))
def test_the_canonical_form_is_its_own(text: str) -> None:
    once = calls.canonical(text)
    assert calls.canonical(once) == once


@pytest.mark.parametrize("depth", [100, 600, 990, 5000])
@pytest.mark.parametrize(
    "form",
    [
        "[f(a=g(a=1)" + "{}" + ")]|(a=1)",
        "[f{}]|(a=1)",
        "[f(a={}1)]|-",
        "[f(a=x{})]|.y",
        "[f(a={}1)]|1+",
        '[{{"name": "f", "arguments": {{"a": {}1}}}}]|[',
        "[f(a={}1)]|(",
    ],
)
def test_an_answer_nested_however_deeply_has_a_canonical_form(env: BFCLEnv, form: str, depth: int) -> None:
    text, _, piece = form.rpartition("|")
    close = {"[": "]", "(": ")"}.get(piece, "")
    action = text.format(piece * depth).replace("1}", f"1{close * depth}}}") if close else text.format(piece * depth)
    once = calls.canonical(action)
    assert calls.canonical(once) == once
    env.reset(options={"task": "bfcl/multi_turn_base_12"})
    assert env.step(action)[4]["restarts"] == 0


def test_what_is_executed_does_not_depend_on_the_spelling() -> None:
    rng = random.Random(8)
    truths = [text for task in data.ids("multi_turn_base") for turn in data.ground_truth(task) for text in turn]
    for _ in range(3_000):
        action = _fuzzed(rng, truths)
        try:
            executed = calls.read(action).texts()
        except calls.UnreadableError:
            executed = []
        try:
            again = calls.read(calls.canonical(action)).texts()
        except calls.UnreadableError:
            again = []
        assert again == executed, action
