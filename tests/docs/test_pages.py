"""The documentation says what is so: its blocks are run, its commands, options and extras exist. The examples run too."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from cotbench.cli.app import COMMANDS
from tests.docs import blocks
from tests.docs.blocks import DOCS, EXAMPLES, FILES, ROOT, RUN, read_blocks, resized, setting_of
from tests.docs.command_lines import check_command, command_lines
from tests.docs.session import Session, play_page

_DIRECT = ("README.md", "CONTRIBUTING.md")
_NOTEBOOK = ROOT / "examples" / "reading_a_run.ipynb"
_NAMES = [path.relative_to(DOCS).as_posix() for path in blocks.pages()]
_RUN_BY_DEFAULT = [name for name in _NAMES if setting_of(DOCS / name).suite == "default"]
_SLOW = [name for name in _NAMES if setting_of(DOCS / name).suite == "slow"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def _run(session: Session, name: str, folder: Path) -> None:
    page = DOCS / name
    missing = [module for module in setting_of(page).needs if find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    for block, printed in play_page(session, page, folder):
        assert block.text == printed, f"{name}:{block.line}: printed\n{printed}\n(python -m tests.docs.outputs docs/{name})"


@pytest.mark.parametrize("name", _RUN_BY_DEFAULT)
def test_a_page_runs(session: Session, name: str, tmp_path: Path) -> None:
    _run(session, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", _SLOW)
def test_a_longer_page_runs(session: Session, name: str, tmp_path: Path) -> None:
    _run(session, name, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("matplotlib", "jinja2", "sqlalchemy")), reason="no extras report, leaderboard"
)
def test_the_readme_runs_behind_its_two_commands(session: Session, tmp_path: Path) -> None:
    """Those two install, and are run in a new environment."""
    assert play_page(session, ROOT / "README.md", tmp_path) == []
    assert (tmp_path / "runs" / "cautious" / "summary.json").is_file()


def test_every_block_is_run_or_says_why_not() -> None:
    for name in _NAMES:
        found = read_blocks(DOCS / name)
        fenced = [block for block in found if block.title not in EXAMPLES]
        assert len(fenced) * 2 == len(re.findall(r"^ *```", (DOCS / name).read_text("utf-8"), re.MULTILINE)), name
        for block in found:
            place = f"{name}:{block.line}"
            assert block.language in {*RUN, *FILES, "text", "mermaid"}, f"{place}: a block names its language"
            assert block.mark in ("", "output") or re.match(r"skip, .{5,}", block.mark), f"{place}: {block.mark}"
            assert not block.is_output or block.language == "text", place
            assert block.title or block.language not in ("toml", "json", "yaml"), f"{place}: what file is it?"
        if any(block.is_run for block in found):
            assert setting_of(DOCS / name).suite, f"{name} has blocks to run: which suite runs them?"


def test_a_page_that_is_run_with_other_sizes_has_them_and_prints_nothing_of_them() -> None:
    for name in _NAMES:
        sizes, found = setting_of(DOCS / name).sizes, read_blocks(DOCS / name)
        for given, smaller in sizes.items():
            option, number = smaller.split()
            assert given.split()[0] == option and 0 < int(number) < int(given.split()[1]), f"{name}: {given} = {number}"
            changed = [block for block in found if block.is_run and resized(block, {given: smaller}).text != block.text]
            assert changed and not any(block.is_output for block in found), f"{name}: no command has {given}"


@pytest.mark.parametrize("name", [*_DIRECT, *(f"docs/{name}" for name in _NAMES)])
def test_every_command_exists(name: str) -> None:
    for words in command_lines((ROOT / name).read_text("utf-8")):
        check_command(words)


def test_every_command_in_a_sentence_exists() -> None:
    for name in (*_DIRECT, *(f"docs/{name}" for name in _NAMES)):
        for words in re.findall(r"`cotbench ([a-z][^`]*)`", (ROOT / name).read_text("utf-8")):
            assert re.split(r"[ |]", words)[0] in COMMANDS, f"{name}: cotbench {words}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run --agnet random", "agnet"),
        ("run --agent", "agent"),
        ("leaderboard lst", "no command"),
        ("runs --agent random", "no command"),
        ("compare a b c", "not read"),
    ],
)
def test_a_wrong_command_is_found(line: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_command(line.split())


def test_every_extra_exists() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    for name in (*_DIRECT, *(f"docs/{name}" for name in _NAMES)):
        for named in re.findall(r"(?:cotbench|'\.|\")\[([a-z,]+)\]", (ROOT / name).read_text("utf-8")):
            assert set(named.split(",")) <= extras, f"{name}: {named}"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert set(_NAMES) <= listed


def test_every_script_is_run_by_a_page_or_by_the_tests_of_the_bridges() -> None:
    run: set[str] = set()
    named: set[str] = set()
    for page in blocks.pages():
        for block in read_blocks(page):
            if block.language == "bash" and not block.title:
                scripts = {words[1] for words in block.commands if words[0] == "python"}
                (run if block.is_run else named).update(scripts)
    tests = "".join(path.read_text("utf-8") for path in sorted((ROOT / "tests/cotbench/bridges").glob("test_*.py")))
    tested = {f"{name}.py" for name in re.findall(r"example\(\"(\w+)\"\)", tests)}
    assert set(EXAMPLES) <= run | (named & tested)


def test_the_notebook_holds_no_output() -> None:
    notebook = json.loads(_NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_the_notebook_runs(session: Session, tmp_path: Path) -> None:
    """Cell by cell in one process, the last expression of each shown; a kernel does no more."""
    shutil.copy(_NOTEBOOK.parent / "searcher.py", tmp_path)
    body = ["import json", "shown = []"]
    for cell in json.loads(_NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.parse(f"shown.append({ast.unparse(last.value)})").body[0]
        body.append(ast.unparse(tree))
    body.append("mean, p, prompt_only, cot_only = shown[1]")
    body.append("print(json.dumps([len(shown), mean, cot_only, prompt_only, float(shown[-1]['mean'].max())]))")
    printed = session.run_code("\n".join(body), tmp_path).out
    count, gap, cot_only, prompt_only, most = json.loads(printed.splitlines()[-1])
    assert count == 5 and gap > 0 and cot_only > prompt_only and most > 0.5
