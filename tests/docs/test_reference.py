"""The pages of the commands hold every command and option; the tables, what is registered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from cotbench.cli.app import COMMANDS, load_command
from tests.docs.blocks import DOCS


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    sys.path.append(str(DOCS / "hooks"))
    import command_reference

    yield command_reference
    sys.path.remove(str(DOCS / "hooks"))


def test_every_option_of_every_command_is_there(reference: ModuleType) -> None:
    index, *pages = reference.command_pages()
    assert [page.title for page in pages] == [f"cotbench {name}" for name in COMMANDS]
    assert all(page.title in index.text for page in pages)
    for name, page in zip(COMMANDS, pages, strict=True):
        for words, command in reference.leaves(load_command(name, []), (name,)):
            assert f"cotbench {' '.join(words)}" in page.text
            for option in command.params:
                if option.param_type_name == "option" and not option.hidden:
                    assert f"`{option.opts[0]}`" in page.text, (words, option.opts)


def test_an_option_is_told_as_its_field_has_it(reference: ModuleType) -> None:
    page = next(page for page in reference.command_pages() if page.title == "cotbench run")
    assert "| `--mode` | `TEXT` | Modes to play: prompt, cot or both | `both` |" in page.text
    assert "| `--import` | `FILE\\|MODULE` |" in page.text, "a bar does not end a cell"


def test_tables_are_of_what_is_registered(reference: ModuleType) -> None:
    from registered import TABLES

    assert "| `paper` | `ood_pair` | 1,000 | the first 120 | out of domain |" in TABLES["splits"]("alfworld-gen")
    assert "| `official` | `valid_seen` | 140 | all |" in TABLES["splits"]("alfworld")
    for kind, name in (("agents", "hf:MODEL"), ("aliases", "hf:qwen"), ("probes", "conflict"), ("recipes", "sft+")):
        assert f"| `{name}` |" in TABLES[kind]()
