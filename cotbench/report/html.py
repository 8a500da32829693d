"""The page as one self-contained HTML file, with its figures and tables as files beside it. Invariant: the same page gives the
same bytes; text from a model or an environment is escaped, never markup; nothing is fetched from the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cotbench.errors import UsageError
from cotbench.printable import printable
from cotbench.report.browser import EPISODE_BYTES, browsed, episodes_json
from cotbench.report.cells import csv_text, estimate_text, numbers_of, render_table
from cotbench.report.colours import Style, others_of, palette_css, styles
from cotbench.report.drawing import Font, figure_pdf, panel_svgs
from cotbench.report.folding import FoldedTable, fold_table
from cotbench.report.latex import latex_table
from cotbench.report.page import BrowsedRun, Card, Figure, Line, Page, Section, Table
from cotbench.report.svg import page_svg
from cotbench.report.typography import typeset, typeset_name
from cotbench.runs.atomic_file import write_atomically

INDEX = "index.html"
PAGE_BYTES = 5_000_000
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MARKS = {"o": "M14 6m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "s": "M11 3h6v6h-6z", "^": "M14 2l3.5 7h-7z"}
_MARKS |= {
    "D": "M14 2l4 4l-4 4l-4-4z",
    "v": "M14 10l3.5-7h-7z",
    "P": "M12.8 2.5h2.4v2.3h2.3v2.4h-2.3v2.3h-2.4v-2.3h-2.3v-2.4h2.3z",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A line of a legend: colour name, dashes and marker as SVG."""

    label: str
    colour: str
    dashes: str
    mark: str
    bar: bool


@dataclass(frozen=True, slots=True)
class RenderedFigure:
    """A figure on the page: its panels as SVG, its legend, its numbers as a table."""

    name: str
    title: str
    caption: str
    panels: tuple[str, ...]
    legend: tuple[Key, ...]
    numbers: FoldedTable


@dataclass(frozen=True, slots=True)
class RenderedSection:
    """A section; an item is (its number, figure or None, table or None)."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...]
    items: tuple[tuple[int, RenderedFigure | None, FoldedTable | None], ...]


@dataclass(frozen=True, slots=True)
class RenderedCard:
    """A number card."""

    title: str
    value: str
    interval: str
    n: int
    about: str


def write_report(page: Page, out: Path, episode_bytes: int = EPISODE_BYTES, font: Font = "sans") -> Path:
    """Write `index.html`, `figures/NAME.pdf`, and `.csv` and `.tex` of each figure and table into a folder; existing files of
    these names are replaced.

    Args:
        page: the report.
        out: the folder.
        episode_bytes: for the episodes in the page, fewer where the page would pass 5 MB; `browser.browsed` chooses them, and
            the page gives their number and the number of all.
        font: of the PDFs.

    Returns:
        The path of the page.

    Raises:
        ValueError: two figures or tables share a name, or a name is not fit for a file.
        UsageError: the folder cannot be made.
    """
    figures = [item for section in page.sections for item in section.items if isinstance(item, Figure)]
    tables = [item for section in page.sections for item in section.items if isinstance(item, Table)]
    tables += [page.claims] if page.claims else []
    _check_names("figure", [figure.name for figure in figures])
    _check_names("table", [table.name for table in tables])
    others = others_of(figures)
    styles_by_figure = {figure.name: styles(figure, others) for figure in figures}
    html = page_html(page, styles_by_figure, episode_bytes)
    try:
        for folder in ("figures", "tables"):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made: {error.strerror}; choose another --out") from error
    for figure in figures:
        write_atomically(out / "figures" / f"{figure.name}.pdf", [figure_pdf(figure, styles_by_figure[figure.name], font)])
    for folder, some in (("figures", [numbers_of(figure) for figure in figures]), ("tables", tables)):
        for table in some:
            write_atomically(out / folder / f"{table.name}.csv", [csv_text(table)])
            write_atomically(out / folder / f"{table.name}.tex", [latex_table(table)])
    write_atomically(out / INDEX, [html])
    return out / INDEX


def _check_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{kind} {name!r}: letters, digits, dots, dashes and underscores name its file")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two {kind}s are called {twice[0]!r}")


def page_html(page: Page, styles_by_figure: Mapping[str, Mapping[Line, Style]], episode_bytes: int) -> str:
    """Return the page as text.

    Args:
        page: the report.
        styles_by_figure: figure name -> its lines' styles.
        episode_bytes: for the episodes in the page.
    """
    sections = _sections(page, styles_by_figure)
    bare = _rendered(page, sections, ())
    if not page.runs:
        return bare
    return _rendered(page, sections, browsed(page.runs, min(episode_bytes, PAGE_BYTES - len(bare.encode()) - 100_000)))


def page_environment(package: str | None = None) -> Any:
    """Return the Jinja environment of a page: all text is escaped and printable, and a name that is missing is an error.

    Args:
        package: has templates of its own in its folder `templates`; the report's (tables, the episode browser) come after them.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    own = [] if package is None else [PackageLoader(package, "templates")]
    return Environment(
        loader=ChoiceLoader([*own, PackageLoader("cotbench", "report")]),
        autoescape=True,
        finalize=printable_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _rendered(page: Page, sections: Sequence[RenderedSection], runs: Sequence[BrowsedRun]) -> str:
    from markupsafe import Markup

    style = palette_css() + _asset("page.css") + (_asset("browser.css") if runs else "")
    script = _asset("browser.js") if runs else ""
    environment = page_environment()
    environment.filters["typeset"] = typeset
    text: str = environment.get_template("page.html.jinja").render(
        page=page,
        claims=None if page.claims is None else fold_table(render_table(page.claims)),
        cards=[_card(card) for card in page.cards],
        sections=sections,
        runs=runs,
        shown=sum(len(run.episodes) for run in runs),
        of=sum(run.of or 0 for run in runs),
        manifest=json.dumps(page.manifest, indent=2, default=str, ensure_ascii=False),
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  (our own file)
        script=Markup(script),  # noqa: S704  (our own file)
        episodes=Markup(episodes_json(runs)),  # noqa: S704  (escaped there)
        svg=Markup,  # Of `svg.page_svg`, which escapes.
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # A lone half of a surrogate pair cannot be written.


def printable_text(value: object) -> object:
    """Return a value of a template, printable where it is text and not HTML."""
    return printable(value) if type(value) is str else value


def _policy(style: str, script: str) -> str:
    """Return the page's content security policy: its own style and script, by their hashes, and nothing else."""
    allowed = f"style-src {_policy_source(style)}; script-src {_policy_source(script)}; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def script_source() -> str:
    """Return how a content security policy names the script of a report's page: by its hash."""
    return _policy_source(_asset("browser.js"))


def _policy_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" if text else "'none'"


def _asset(name: str) -> str:
    return resources.files("cotbench.report").joinpath(name).read_text("utf-8")


def _sections(page: Page, styles_by_figure: Mapping[str, Mapping[Line, Style]]) -> list[RenderedSection]:
    """Return the sections with their figures drawn; figures and tables are numbered through the page."""
    shown: list[RenderedSection] = []
    figures = tables = 0
    for section in page.sections:
        items: list[tuple[int, RenderedFigure | None, FoldedTable | None]] = []
        for item in section.items:
            if isinstance(item, Figure):
                figures += 1
                items.append((figures, _figure(item, styles_by_figure[item.name]), None))
            else:
                tables += 1
                items.append((tables, None, fold_table(render_table(item))))
        shown.append(RenderedSection(_anchor(section, shown), section.title, paragraphs_of(section.text), tuple(items)))
    return shown


def paragraphs_of(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which are separated by empty lines."""
    return tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())


def _anchor(section: Section, before: Sequence[RenderedSection]) -> str:
    """Return the section's title as a URL fragment; numbered where another section has the same."""
    base = "-".join(re.findall(r"[a-z0-9]+", section.title.lower())) or "section"
    taken = {
        "answer",
        "claims",
        "cards",
        "notes",
        "warnings",
        "contents",
        "episodes",
        "manifest",
        *(each.anchor for each in before),
    }
    return next(name for number in range(len(taken) + 1) if (name := f"{base}-{number}" if number else base) not in taken)


def _figure(figure: Figure, line_styles: Mapping[Line, Style]) -> RenderedFigure:
    panels = tuple(
        page_svg(drawn, f"{figure.name}-{place}", panel)
        for place, (drawn, panel) in enumerate(zip(panel_svgs(figure, line_styles), figure.panels, strict=True))
    )
    keys: dict[str, Key] = {}
    for panel in figure.panels:
        for line in panel.lines:
            style = line_styles[line]
            dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
            key = Key(typeset_name(line.label), style.colour, dashes, _MARKS[style.marker], bool(panel.labels))
            keys.setdefault(line.label, key)
    numbers = fold_table(render_table(numbers_of(figure)))
    text = typeset(figure.title), typeset(figure.caption)
    return RenderedFigure(figure.name, *text, panels, tuple(keys.values()), numbers)


def _card(card: Card) -> RenderedCard:
    value, _, interval = typeset(estimate_text(card.estimate, card.signed)).partition(" ")
    return RenderedCard(card.title, value, interval, card.estimate.n, typeset(card.about))
