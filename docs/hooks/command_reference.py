"""The pages of the command-line reference. Invariant: every command and option comes from the command line itself, whose
options are fields of the config models, so a page can name nothing that does not exist and leave nothing out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cotbench.cli.app import COMMANDS, load_command

FOLDER = "reference/commands"
_OWN = "Options"


@dataclass(frozen=True, slots=True)
class CommandPage:
    """A page of the reference.

    Attributes:
        path: below the docs folder.
        title: the command, as it is typed.
        text: Markdown.
    """

    path: str
    title: str
    text: str


def command_pages() -> list[CommandPage]:
    """Return the index and one page for each command, in the order of `cotbench --help`."""
    pages = [CommandPage(f"{FOLDER}/{name}.md", f"cotbench {name}", _page(name)) for name in COMMANDS]
    return [CommandPage(f"{FOLDER}/index.md", "Commands", _index(pages)), *pages]


def leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that can be run, with the words that name it.

    Args:
        command: a command or a group of them.
        words: those that lead to it.
    """
    inside = getattr(command, "commands", None)
    if inside is None:
        yield words, command
        return
    for name, one in inside.items():
        yield from leaves(one, (*words, name))


def _index(pages: list[CommandPage]) -> str:
    rows = [f"| [`{page.title}`]({page.path.rsplit('/', 1)[1]}) | {COMMANDS[name].summary} |" for name, page in _named(pages)]
    return "\n".join(
        (
            "# Commands\n",
            "These pages are made from the command line itself: the options of a command are the fields of its config model, "
            "and their descriptions are what `--help` prints. `cotbench COMMAND --help` shows the same in a terminal.\n",
            "Exit codes: 0, done; 1, the work failed or is incomplete; 2, a usage error; 130, interrupted (the command that "
            "goes on is printed).\n",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
        )
    )


def _named(pages: list[CommandPage]) -> Iterator[tuple[str, CommandPage]]:
    yield from zip(COMMANDS, pages, strict=True)


def _page(name: str) -> str:
    parts = [f"# cotbench {name}\n", f"{COMMANDS[name].summary}\n"]
    found = list(leaves(load_command(name, []), (name,)))
    for words, command in found:
        if len(found) > 1:
            parts += [f"## cotbench {' '.join(words)}\n", f"{_sentence(command.help)}\n"]
        parts += [f"```text\ncotbench {' '.join((*words, *_usage(command)))}\n```\n", *_tables(command)]
    if name == "train":
        parts += _recipes()
    if name == "probe":
        parts += _probes()
    return "\n".join(parts)


def _recipes() -> Iterator[str]:
    """Yield the options of the recipes other than the usual one, which `cotbench train` alone shows."""
    from cotbench.recipes import recipe_named, recipe_names

    usual = load_command("train", [])
    shared = {option.opts[0] for option in usual.params}
    for name in recipe_names():
        own = [one for one in load_command("train", ["--recipe", name]).params if one.opts[0] not in shared]
        yield f"## --recipe {name}\n"
        yield f"{_sentence(recipe_named(name).description)}\n"
        yield f"{_table(own)}\n" if own else "Its options are among those above.\n"


def _probes() -> Iterator[str]:
    """Yield the options of each probe, which `-o NAME=VALUE` sets."""
    from cotbench.probes.probe import probe_named, probe_names

    yield "## Options of the probes\n"
    yield "Set with `-o NAME=VALUE`.\n"
    for name in probe_names():
        probe = probe_named(name)
        yield f"### {name}\n"
        yield f"{_sentence(probe.description)}\n"
        rows = [
            (f"`{field}`", _cell(info.description or ""), _code("" if info.is_required() else info.default))
            for field, info in probe.options.model_fields.items()
        ]
        yield _rows(("option", "what it is", "default"), rows) + "\n" if rows else "It has no options.\n"


def _usage(command: Any) -> list[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    return ["[OPTIONS]", *(_metavar(one) for one in arguments)]


def _tables(command: Any) -> Iterator[str]:
    """Yield the arguments, then the options by their panels."""
    arguments = [one for one in command.params if one.param_type_name == "argument" and not one.hidden]
    if arguments:
        yield _rows(("argument", "what it is"), [(_code(_metavar(one)), _cell(_plain(one.help))) for one in arguments]) + "\n"
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    panels = dict.fromkeys(getattr(one, "rich_help_panel", None) or _OWN for one in options)
    for panel in panels:
        if len(panels) > 1 or arguments:
            yield f"**{panel}**\n"
        yield _table([one for one in options if (getattr(one, "rich_help_panel", None) or _OWN) == panel]) + "\n"


def _table(options: list[Any]) -> str:
    rows = []
    for one in options:
        names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
        value = "" if one.is_flag else _code(_metavar(one))
        text, default = _split_default(_plain(one.help))
        rows.append((names, value, _cell(text), _code(default or _own_default(one))))
    return _rows(("option", "value", "what it is", "default"), rows)


def _own_default(option: Any) -> str:
    shown = getattr(option, "show_default", None)
    if isinstance(shown, str):
        return shown
    default = option.default
    return "" if default is None or default is False or callable(default) or default in ((), []) else str(default)


def _plain(markup: str | None) -> str:
    """Return help without rich's markup."""
    from rich.text import Text

    return Text.from_markup(markup or "").plain.strip()


def _split_default(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)\s*\[default: (.*)\]", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, "")


def _metavar(parameter: Any) -> str:
    """Return what stands for a value: its name, its choices or its type."""
    if parameter.metavar:
        return str(parameter.metavar)
    kind = parameter.type_descriptor
    if kind.choices:
        return "|".join(map(str, kind.choices))
    return "PATH" if kind.is_path else re.findall(r"int|float|$", str(kind.annotation))[0].upper() or "TEXT"


def _sentence(text: str | None) -> str:
    words = " ".join(_plain(text).split())
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", ":")) else ".")


def _code(value: object) -> str:
    text = "" if value is None or value in ((), "") else _cell(str(value))
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _rows(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
