"""The pages as HTML. Invariant: pure, from data to HTML; what a submitter, a model or an address wrote is text, never markup;
no script and no style stands in a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cotbench.leaderboard.boards.labels import MODES, board_title, counted, env_title, minute
from cotbench.leaderboard.boards.overview import SPLITS, EnvOverview
from cotbench.leaderboard.boards.view import BoardView, named_rows, sorted_rows
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import STATES, Entry
from cotbench.leaderboard.store.levels import FIGURES, LEGEND, LEVELS, MARKS
from cotbench.leaderboard.submission.limits import MB, PACKED
from cotbench.leaderboard.web.api_docs import operations
from cotbench.leaderboard.web.board_query import ALL, BoardQuery, known_boards
from cotbench.leaderboard.web.board_table import board_table, overview_rows
from cotbench.leaderboard.web.entry_sections import EntryEpisodes, facts, numbers_table, rerun_rows, type_rows
from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.pareto import HEIGHT, pareto_plot
from cotbench.report.html import page_environment

ROWS = 100
"""Of a board, on one page."""
QUESTION = "Does an agent’s reasoning change what it does?"
LEAD = (
    "cotbench measures whether a language-model agent’s reasoning changes its actions: each agent plays the same tasks in "
    "prompt mode (it acts at once) and in CoT mode (it reasons first), and is ranked by the success that executing its actions "
    "again confirms."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A link to a suggestion."""

    title: str
    address: str


@dataclass(frozen=True, slots=True)
class Typed:
    """The fields of the form as they were sent; not the token, which is never sent back."""

    name: str = ""
    team: str = ""
    link: str = ""


def board_page(
    view: BoardView,
    query: BoardQuery,
    boards: Sequence[Board],
    links: Links,
    *,
    size: int | None = ROWS,
    overview: Sequence[EnvOverview] = (),
) -> str:
    """Render a page of a board.

    Args:
        view: of the query's board and state.
        query: what the page shows.
        boards: those that have entries.
        links: the addresses.
        size: rows on a page; all where None.
        overview: of all environments, on the first page.
    """
    rows = sorted_rows(named_rows(view.rows, query.name), query.sort, query.descending)
    pages = max(1, -(-len(rows) // size)) if size is not None else 1
    page = min(query.page, pages)
    visible = rows[(page - 1) * size : page * size] if size is not None else rows

    def at(number: int) -> str | None:
        if not 1 <= number <= pages:
            return None
        return links.board(query.board, query.state, query.sort, query.descending, number, query.name)

    others = {state: n for state, n in view.counts.items() if n and state != query.state}
    return _rendered(
        "board.html.jinja",
        links=links,
        title=QUESTION if overview else board_title(query.board),
        board_title=board_title(query.board),
        lead=LEAD,
        overview=overview_rows(overview, links),
        overview_splits=list(SPLITS.values()),
        plot=pareto_plot(rows),
        plot_height=HEIGHT,
        query=query,
        overall=query.board.overall,
        heading=counted(len(rows), "system" if query.board.overall else "entry", query.state),
        total=len(rows),
        tasks=sorted({row.tasks for row in rows if row.rank is not None}),
        legend=legend(),
        table=board_table(visible, view.reported if page == 1 else (), query, links),
        others=[
            (counted(n, "entry", state), links.board(query.board, state))
            for state, n in others.items()
            if query.state is not None
        ],
        form=_form(query, boards),
        boards=[(board, board_title(board), links.board(board)) for board in boards],
        page=page,
        pages=pages,
        previous=at(page - 1),
        next=at(page + 1),
    )


def _form(query: BoardQuery, boards: Sequence[Board]) -> dict[str, Any]:
    """Return the selects of the form: name -> (value, words, environments that have it)."""
    known = known_boards(boards)
    envs = list(dict.fromkeys(board.env for board in known))
    splits: dict[tuple[str, str], list[str]] = {}
    for board in known:
        found = splits.setdefault((board.scheme, board.split), [])
        if board.env not in found:
            found.append(board.env)
    schemes = dict.fromkeys(scheme for scheme, _ in splits)
    return {
        "envs": [(env, env_title(env)) for env in envs],
        "schemes": {
            scheme: [(split, " ".join(on)) for (one, split), on in splits.items() if one == scheme] for scheme in schemes
        },
        "modes": list(MODES.items()),
        "states": [*STATES, ALL],
        "state": query.state or ALL,
    }


def entry_page(entry: Entry, content: EntryEpisodes, links: Links) -> str:
    """Render an entry's page."""
    from markupsafe import Markup

    summary = entry.summary
    modes = [mode for mode in MODES if mode in summary.modes]
    return _rendered(
        "entry.html.jinja",
        links=links,
        title=entry.details.name,
        entry=entry,
        summary=summary,
        env=env_title(summary.env),
        boards=[
            (board_title(board), links.board(board, "replayed" if entry.state == "replayed" else None))
            for board in (Board(summary.env, summary.scheme, summary.split, mode) for mode in modes)
        ],
        submitted=minute(entry.submitted),
        settled=minute(entry.settled) if entry.settled is not None else None,
        errors=sum(mode.errors for mode in summary.modes.values()),
        numbers=numbers_table(summary, entry.level),
        facts=facts(summary, entry.level),
        agent_mark=MARKS[FIGURES["agent"].level(entry.level)],
        legend=legend(),
        rerun=rerun_rows(entry.reproduction) if entry.reproduction is not None else (),
        modes=[(mode, MODES[mode]) for mode in modes],
        types=type_rows(summary),
        content=content,
        episodes=Markup(content.episodes),  # noqa: S704  (escaped there)
    )


def legend() -> tuple[tuple[str, str, str], ...]:
    """Return the levels from the highest down: mark, name, what it says."""
    return tuple((MARKS[level], level, LEGEND[level]) for level in reversed(LEVELS))


def submit_page(links: Links, *, token_required: bool, server: str, typed: Typed | None = None, error: str = "") -> str:
    """Render the form to submit with.

    Args:
        links: the addresses.
        token_required: whether the form has a field for a token.
        server: the address of this server, for the command line.
        typed: the fields as they were sent before.
        error: why they were refused.
    """
    return _rendered(
        "submit.html.jinja",
        links=links,
        title="Submit a run",
        token_required=token_required,
        most=f"{PACKED // MB} MB",
        server=server,
        typed=typed or Typed(),
        error=error,
    )


def docs_page(schema: dict[str, Any], links: Links, *, token_required: bool, server: str) -> str:
    """Render the documentation of the API.

    Args:
        schema: OpenAPI.
        links: the addresses.
        token_required: whether the examples send a token.
        server: the address of this server.
    """
    return _rendered(
        "docs.html.jinja",
        links=links,
        title="The API",
        operations=operations(schema),
        token_required=token_required,
        server=server,
    )


def error_page(title: str, message: str, choices: Sequence[Choice], links: Links) -> str:
    """Render the page of a refusal."""
    return _rendered("error.html.jinja", links=links, title=title, message=message, choices=choices)


def _rendered(template: str, **values: Any) -> str:
    text: str = _environment().get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode("utf-8")  # A lone half of a surrogate pair cannot be written.


@cache
def _environment() -> Any:
    found = page_environment("cotbench.leaderboard.web")
    found.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return found
