"""The page and the API on a real server: what is shown is what is stored, what is refused leaves nothing, nothing is taken for
markup, and nobody gets in from elsewhere.
"""

from __future__ import annotations

import csv
import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cotbench.errors import UnknownNameError, UsageError
from cotbench.leaderboard.boards.view import Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification.difference import Difference
from cotbench.printable import printable
from cotbench.stats.estimates import Estimate
from tests.cotbench.report.pages import HOSTILE, Read
from tests.leaderboard.made import bundled, packed
from tests.leaderboard.serving import Answer, ask, form, needs_web, sent, served, variant

pytestmark = needs_web
SPLIT = Board("alfworld-gen", "paper", "id", "cot")
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    from cotbench.leaderboard.store.store import Store

    with Store.open(tmp_path / "board.sqlite") as opened:
        yield opened


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Twelve whole entries of one split; one of them pending, one rejected."""
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import repack
    from tests.leaderboard.stored import bundle

    with Store.open(tmp_path_factory.mktemp("full") / "board.sqlite") as opened:
        for number in range(12):
            made = bundle(f"Agent {number:02}", 0.3 + number / 20, seed=number, team=f"Team {number % 3}")
            entry, _ = opened.add(made, ("4 of 120 tasks",) if number == 5 else (), repack(made))
            if number == 7:
                difference = Difference.at("observation", HOSTILE[0], HOSTILE[1], episode="alfworld/gen/pick/1#cot", step=3)
                opened.settle(entry.id, difference, with_versions={})
            elif number != 3:
                opened.settle(entry.id, None, with_versions={})
        yield opened


@pytest.fixture(scope="module")
def board(full: Any) -> Iterator[str]:
    with served(full) as server:
        yield server


def _names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="[^"]*">([^<]*)</a>', page)


def _said(page: str) -> str:
    """What an error page says."""
    return " ".join(Read(page).text.split())


# The board.


def test_the_board_shows_what_is_stored(full: Any, board: str) -> None:
    from cotbench.leaderboard.boards.view import board_view
    from cotbench.report.cells import estimate_text

    answer = ask(board, "/")
    rows = board_view(full, SPLIT).rows
    assert answer.status == 200 and len(rows) == 10
    assert _names(answer.text) == [row.details.name for row in rows]
    text = " ".join(Read(answer.text).text.split())
    assert "10 replayed entries" in text and "Beside them 1 pending entry and 1 rejected entry." in text
    for row in rows:
        shown = estimate_text(row.success).replace("-", "−")
        rank = str(row.rank) if row.rank is not None else "–"
        assert f"{rank} {row.details.name} {row.details.team} {shown} " in text
    unranked = next(row for row in rows if row.rank is None)
    assert unranked.details.name == "Agent 05" and "replayed 4 of 120 tasks" in text


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_every_column_sorts_as_the_standings_do(full: Any, board: str, order: str) -> None:
    from cotbench.leaderboard.boards.view import COLUMNS, board_view, sorted_rows

    for column in COLUMNS:
        page = ask(board, f"/?sort={column}&order={order}").text
        wanted = sorted_rows(board_view(full, SPLIT).rows, column, order == "descending")
        assert _names(page) == [row.details.name for row in wanted], column
        assert [head["aria-sort"] for head in Read(page).all("th") if "aria-sort" in head] == [order], column


def test_the_links_of_the_head_lead_through_both_orders(board: str) -> None:
    page = ask(board, "/").text
    link = next(link["href"] for link in Read(page).all("a") if "sort=success" in str(link["href"]))
    first = ask(board, str(link))
    again = next(link["href"] for link in Read(first.text).all("a") if "sort=success" in str(link["href"]))
    second = ask(board, str(again))
    assert "order=descending" in str(link) and "order=ascending" in str(again)
    assert sorted(_names(first.text)) == sorted(_names(second.text)) and _names(first.text)[0] == _names(second.text)[-1]


def test_filters(board: str) -> None:
    def names(query: str) -> list[str]:
        return _names(ask(board, f"/?{query}").text)

    assert names("state=rejected") == ["Agent 07"] and names("state=pending") == ["Agent 03"]
    assert len(names("state=all")) == 12
    assert names("mode=prompt&sort=name") == names("sort=name") != []
    assert names("env=bfcl") == names("split=paper/ood") == []
    page = Read(ask(board, "/?mode=prompt&state=all").text)
    chosen = [option["value"] for option in page.all("option") if "selected" in option and "value" in option]
    assert chosen == ["alfworld-gen", "paper/id", "prompt"]


def test_an_empty_board_says_how_to_submit(board: str) -> None:
    text = " ".join(Read(ask(board, "/?env=bfcl&split=paper/ood_miss").text).text.split())
    assert "cotbench run --agent AGENT --env bfcl --split ood_miss --out RUN" in text
    assert "cotbench leaderboard submit RUN" in text
    overall = " ".join(Read(ask(board, "/?env=all").text).text.split())
    assert "--env alfworld,scienceworld,bfcl" in overall and "a replayed entry of the whole split" in overall


def test_what_the_paper_reports_stands_apart(board: str) -> None:
    page = ask(board, "/?env=alfworld&split=paper/ood&mode=cot").text
    body = page[page.index('<tbody class="paper">') : page.index("</tbody>", page.index('<tbody class="paper">'))]
    assert 'scope="rowgroup"' in body and "Reported by the paper, not replayed" in body
    assert body.count("reported, not replayed") == body.count('scope="row"') == 9
    assert "Qwen3-8B, GRPO+" in body and "0.89" in body and '<td class="number rank">–</td>' in body
    assert 'class="paper"' not in ask(board, "/?env=alfworld&split=paper/ood&mode=prompt").text
    assert 'class="paper"' not in ask(board, "/?env=alfworld&split=official/valid_seen").text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("env=alfworld-ge", "Unknown environment 'alfworld-ge'; did you mean 'alfworld-gen'"),
        ("env=bfcl&split=paper/oood", "Unknown split 'paper/oood' of bfcl; did you mean 'paper/ood'"),
        ("split=paper/train", "Unknown split 'paper/train'"),
        ("mode=both", "Unknown mode 'both'"),
        ("state=replaied", "Unknown state 'replaied'; did you mean 'replayed'?"),
        ("sort=sucess", "Unknown column 'sucess'; did you mean 'success'?"),
        ("sort=details", "Unknown column 'details'"),
        ("order=up", "Unknown order 'up'; known: ascending, descending"),
        ("page=0", "Unknown page '0'"),
        ("page=-1", "Unknown page '-1'"),
        ("page=%C2%B2", "Unknown page '²'"),
        ("page=" + "9" * 3000, "Unknown page '999"),
        ("sorted=rank", "Unknown parameter 'sorted'; did you mean 'sort'?"),
        ("env=%00'; DROP TABLE entries; --", 'Unknown environment "\\x00\'; DROP TABLE entries; --"'),
        ("env=%3Cscript%3Ealert(1)%3C/script%3E", "Unknown environment '<script>alert(1)</script>'"),
    ],
)
def test_what_is_not_there_is_named(board: str, query: str, said: str) -> None:
    answer = ask(board, f"/?{query}".replace(" ", "%20").replace("'", "%27"))
    page = Read(answer.text)
    assert answer.status == 404 and said in _said(answer.text)
    assert not page.all("script") and "/?env=alfworld-gen&split=paper/id&mode=cot" in {a["href"] for a in page.all("a")}


def test_a_board_that_is_not_named_whole_is_one_that_has_entries() -> None:
    from cotbench.leaderboard.web.board_query import parse_board_query

    there = [Board("bfcl", "paper", "id", "prompt"), Board("scienceworld", "paper", "ood", "cot")]
    assert parse_board_query({}, there).board == there[1]
    assert parse_board_query({"env": "bfcl"}, there).board == there[0]
    assert parse_board_query({"mode": "prompt"}, there).board == there[0]
    assert parse_board_query({"env": "bfcl", "mode": "cot"}, there).board == Board("bfcl", "paper", "ood", "cot")
    assert parse_board_query({"env": "bfcl", "split": ""}, there).board == there[0]
    with pytest.raises(UnknownNameError):
        parse_board_query({"env": "bfcl", "split": "paper/ood_room"}, there)


def test_an_environment_that_is_registered_later_has_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    from cotbench.envs import env_entry, register_env, registry
    from cotbench.leaderboard.boards.labels import board_title
    from cotbench.leaderboard.web.board_query import all_boards, parse_board_query

    board, before = Board("toy-of-the-web", "paper", "ood", "cot"), all_boards()
    with pytest.raises(UnknownNameError):
        parse_board_query({"env": board.env}, [])
    env = env_entry("alfworld-gen")
    monkeypatch.setattr(registry._registry, "_registered", {})
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    register_env(board.env, task_source=env.source, title="Toy", overall=("toys of the web",))(env.loaded_class())
    later = set(all_boards()) - set(before)
    assert board in later and {one.env for one in later} == {board.env, "toys of the web"}
    assert parse_board_query({"env": board.env}, []).board == board
    assert board_title(board) == board_title(replace(board, env="toys of the web")) == "Toy, paper/ood, CoT mode"


def test_a_board_with_entries_can_be_read_where_its_environment_is_not_registered() -> None:
    from cotbench.leaderboard.boards.labels import board_title
    from cotbench.leaderboard.web.board_query import BoardQuery, parse_board_query
    from cotbench.leaderboard.web.pages import board_page

    there = Board("elsewhere", "own", "test", "cot")
    assert parse_board_query({"env": "elsewhere", "split": "own/test"}, [there]).board == there
    assert parse_board_query({"env": "elsewhere", "mode": "prompt"}, [there]).board == replace(there, mode="prompt")
    with pytest.raises(UnknownNameError):
        parse_board_query({"env": "elsewhere"}, [])
    page = Read(board_page(_view(2), BoardQuery(there), [there], _links()))
    assert board_title(there) == "elsewhere, own/test, CoT mode" in page.text
    assert [option.get("value") for option in page.all("option") if "selected" in option][:2] == ["elsewhere", "own/test"]


# Pages as text.


def _standing(number: int, text: str = "") -> Standing:
    rate = Estimate(n=120, mean=0.5, low=0.4, high=0.6)
    return Standing(
        rank=number,
        details=Details.model_construct(name=text or f"Agent {number}", team=text, link=text),
        entries=(f"{number:012x}",),
        agent=text or "random",
        state="replayed",
        level="replayed",
        baseline=False,
        unranked=(text,) if text else (),
        tasks=120,
        fingerprint=text,
        submitted=datetime(2026, 1, 2, tzinfo=UTC),
        success=rate,
        score=rate,
        behind=None,
        gap=None,
        consistency=None,
        tokens=rate,
        computed=rate,
    )


def _view(rows: int, text: str = "") -> Any:
    from cotbench.leaderboard.boards.view import BoardView

    standings = tuple(_standing(number, text) for number in range(1, rows + 1))
    return BoardView(SPLIT, standings, (), {"replayed": rows, "pending": 0, "rejected": 0})


def _links() -> Any:
    from cotbench.leaderboard.web.assets import assets
    from cotbench.leaderboard.web.links import ServerLinks

    return ServerLinks({name: asset.filename for name, asset in assets().items()})


def test_a_long_board_has_pages() -> None:
    from cotbench.leaderboard.web.board_query import BoardQuery
    from cotbench.leaderboard.web.pages import board_page

    view = _view(250)
    found: list[str] = []
    for page, others in ((1, {"next": 2}), (2, {"prev": 1, "next": 3}), (3, {"prev": 2}), (9, {"prev": 2})):
        text = board_page(view, BoardQuery(SPLIT, page=page), [SPLIT], _links())
        assert f"page {min(page, 3)} of 3" in text
        links = {str(link["rel"]): str(link["href"]) for link in Read(text).all("a") if "rel" in link}
        numbers = {rel: int((re.findall(r"page=(\d+)", link) or ["1"])[0]) for rel, link in links.items()}
        assert numbers == others
        found += _names(text) if page <= 3 else []
    assert found == [f"Agent {number}" for number in range(1, 251)]
    assert len(_names(board_page(view, BoardQuery(SPLIT), [SPLIT], _links(), size=None))) == 250


class Folder:
    """Links of a folder of files, where nothing is sorted and nothing submitted."""

    def home(self) -> str:
        return "index.html"

    def board(
        self, board: Board, state: Any = "replayed", sort: str = "rank", descending: bool = False, page: int = 1, name: str = ""
    ) -> Any:
        return f"{board.slug}.html" if (state, sort, descending, page, name) == ("replayed", "rank", False, 1, "") else None

    def entry(self, entry: str) -> str:
        return f"entries/{entry}.html"

    def asset(self, name: str) -> str:
        return name

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_folder_of_files_holds_the_same_page() -> None:
    from cotbench.leaderboard.web.board_query import BoardQuery
    from cotbench.leaderboard.web.pages import board_page, error_page

    links: Any = Folder()
    text = board_page(_view(3), BoardQuery(SPLIT), [SPLIT, Board("bfcl", "paper", "id", "cot")], links, size=None)
    page = Read(text)
    assert not page.all("form") and not page.all("script") and not page.all("select")
    assert {link["href"] for link in page.all("a")} == {
        "#content",
        "index.html",
        "bfcl_paper_id_cot.html",
        *(f"entries/{number:012x}.html" for number in (1, 2, 3)),
    }
    assert "Nothing" in error_page("Not Found", "nothing", (), links)


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_written_is_text(text: str) -> None:
    from cotbench.leaderboard.web.board_query import BoardQuery
    from cotbench.leaderboard.web.entry_sections import entry_episodes
    from cotbench.leaderboard.web.pages import Choice, Typed, board_page, entry_page, error_page, submit_page
    from cotbench.runs.summary import summarize

    links = _links()
    bundle = bundled(episodes=2)
    episodes = tuple(
        each.model_copy(update={"task_type": text, "goal": text, "first_observation": text}) for each in bundle.episodes
    )
    manifest = bundle.manifest.model_copy(
        update={"config": bundle.manifest.config.model_copy(update={"agent": text}), "python": text, "git_commit": text}
    )
    bundle = replace(
        bundle, manifest=manifest, episodes=episodes, details=Details.model_construct(name=text, team=text, link=text)
    )
    from cotbench.leaderboard.store.entry import Entry

    entry = Entry.model_construct(
        id="0" * 12,
        number=1,
        details=bundle.details,
        submitted=datetime(2026, 1, 2, tzinfo=UTC),
        settled=None,
        state="rejected",
        difference=Difference(episode=text, step=0, field=text, submitted=text, found=text),
        unranked=(text,),
        mode="both",
        summary=summarize(episodes, manifest),
    )
    pages = {
        "board": board_page(_view(2, text), BoardQuery(SPLIT), [SPLIT], links),
        "entry": entry_page(entry, entry_episodes(bundle), links),
        "submit": submit_page(links, token_required=True, server=text, typed=Typed(text, text, text), error=text),
        "error": error_page(text, text, (Choice(text, "/"),), links),
    }
    for name, html in pages.items():
        page = Read(html)
        assert " ".join(printable(text).split()) in " ".join(page.text.split()), name
        assert not page.all("img") and not page.styles, name
        for tag, attributes in page.elements:
            assert "style" not in attributes and not any(each.startswith("on") for each in attributes), (name, tag)
        for script in page.all("script"):
            data = script.get("type") == "application/json" and script.get("id") == "episode-data"
            assert data or str(script["src"]).startswith("/static/"), name
    assert Read(pages["submit"]).all("input")[1]["value"] == printable(text)
    link = next(a for a in Read(pages["entry"]).all("a") if a.get("rel"))
    assert link == {"href": printable(text), "rel": "nofollow noopener noreferrer"}


def test_no_page_asks_anybody_else(full: Any, board: str) -> None:
    entry = full.entries()[0].id
    for path in ("/", f"/entries/{entry}", "/submit", "/api", "/nothing"):
        page = Read(ask(board, path).text)
        addresses = [
            str(value)
            for tag, attributes in page.elements
            for name, value in attributes.items()
            if name in ("src", "href", "action") and tag != "a"
        ]
        assert addresses and all(each.startswith("/") or each == "data:," for each in addresses), path
        for each in addresses:
            if each.startswith("/static/"):
                asset = ask(board, each)
                assert asset.status == 200 and "immutable" in asset.headers["Cache-Control"]
                assert b"http://" not in asset.body and b"https://" not in asset.body and b"@import" not in asset.body


def test_every_page_has_its_landmarks_and_headings_in_order(full: Any, board: str) -> None:
    for path in ("/", f"/entries/{full.entries()[0].id}", "/submit", "/api", "/nothing"):
        page = Read(ask(board, path).text)
        tags = [tag for tag, _ in page.elements]
        assert [tags.count(tag) for tag in ("main", "header", "footer", "h1")] == [1, 1, 1, 1], path
        assert tags.index("h1") < tags.index("h2") if "h2" in tags else True
        assert page.all("html") == [{"lang": "en"}] and page.all("a")[0]["href"] == "#content"
        labels = {label.get("for") for label in page.all("label")}
        assert all(each.get("id") in labels for each in page.all("input") if "id" in each), path


# An entry.


def test_an_entry_says_what_is_known_of_it(full: Any, board: str) -> None:
    from cotbench.report.cells import estimate_text

    by_name = {entry.details.name: entry for entry in full.entries()}
    replayed, rejected, pending = (by_name[f"Agent {number:02}"] for number in (0, 7, 3))
    text = " ".join(Read(ask(board, f"/entries/{replayed.id}").text).text.split())
    summary = replayed.summary
    assert "Replayed. Every action was executed again" in text and "120 of 1000 tasks, mode both" in text
    for mode in summary.modes.values():
        assert estimate_text(mode.success) in text
        assert all(estimate_text(rate) in text for rate in mode.by_type.values())
    assert summary.gap is not None and f"won by prompt alone {summary.gap.prompt_only}" in text
    assert "token counts and which model wrote them are as submitted" in text and '"task_list_sha256"' in text
    text = " ".join(Read(ask(board, f"/entries/{rejected.id}").text).text.split())
    assert "In episode alfworld/gen/pick/1#cot, step 4: observation" in text
    assert text.index("Submitted" + HOSTILE[0]) < text.index("Replayed" + HOSTILE[1])
    assert "Pending. It has not been replayed yet." in ask(board, f"/entries/{pending.id}").text.replace("</b>", "")
    unranked = ask(board, f"/entries/{by_name['Agent 05'].id}").text
    assert "It has no rank: 4 of 120 tasks." in unranked


def test_an_entry_holds_its_episodes(full: Any, board: str) -> None:
    import json

    entry = full.entries()[0]
    page = Read(ask(board, f"/entries/{entry.id}").text)
    data = json.loads(page.scripts[[script.get("id") for script in page.all("script")].index("episode-data")])
    assert data["runs"][0]["label"] == entry.details.name
    assert len(data["runs"][0]["episodes"]) == data["runs"][0]["of"] == 240
    download = ask(board, f"/api/entries/{entry.id}/bundle")
    assert download.body == full.bundle(entry.id) and download.headers["Content-Type"] == "application/zip"


@pytest.mark.parametrize(
    "path", ["/entries/000000000000", "/entries/ABC", "/entries/%00", "/entries/..%2f..", "/static/x", "/x"]
)
def test_what_is_nowhere_is_a_page(board: str, path: str) -> None:
    answer = ask(board, path)
    assert answer.status == 404 and "<h1>Not Found</h1>" in answer.text


# The API.


def test_the_api_says_what_the_pages_say(full: Any, board: str) -> None:
    from cotbench.leaderboard.boards.view import board_view

    rows = ask(board, f"/api/boards/{SPLIT.slug}").json
    view = board_view(full, SPLIT)
    assert [row["details"]["name"] for row in rows["rows"]] == [row.details.name for row in view.rows]
    assert [row["success"]["mean"] for row in rows["rows"]] == [row.success.mean for row in view.rows]
    assert rows["board"]["url"] == f"{board}/?env=alfworld-gen&split=paper/id&mode=cot"
    assert {each["slug"] for each in ask(board, "/api/boards").json["boards"]} == {each.slug for each in full.boards()}
    listed = ask(board, "/api/entries?state=replayed&limit=3&offset=2").json
    assert listed["total"] == 10
    assert [each["id"] for each in listed["entries"]] == [entry.id for entry in full.entries("replayed", 3, 2)]
    first = listed["entries"][0]
    assert ask(board, f"/api/entries/{first['id']}").json == first
    paper = ask(board, "/api/boards/alfworld_paper_ood_cot").json
    assert len(paper["reported"]) == 9 and paper["rows"] == []


def test_the_table_for_spreadsheets_holds_no_formula() -> None:
    from cotbench.leaderboard.web.board_table import board_csv

    rows = [_standing(1, text) for text in ("=1+1", "@SUM(A1)", "+1", "-1", "\t=1", 'plain, "quoted"')]
    table = list(csv.DictReader(io.StringIO(board_csv(rows))))
    claimed = [f"{name} (self-reported)" for name in ("name", "team", "link", "agent", "elicitation")]
    for row, text in zip(table, ("'=1+1", "'@SUM(A1)", "'+1", "'-1", "'\t=1", 'plain, "quoted"'), strict=True):
        assert {row[name] for name in (*claimed, "unranked")} == {text}
        assert (row["success"], row["success low"], row["success high"], row["success n"]) == ("0.5", "0.4", "0.6", "120")


def test_the_table_for_spreadsheets(full: Any, board: str) -> None:
    answer = ask(board, f"/api/boards/{SPLIT.slug}.csv?state=all")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert len(list(csv.DictReader(io.StringIO(answer.text)))) == 12


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/entries/000000000000", 404, "unknown entry '000000000000'"),
        ("/api/entries/0'1", 422, "path entry_id is refused"),
        ("/api/boards/alfworld_paper_oood_cot", 404, "did you mean 'alfworld_paper_ood_cot'"),
        ("/api/boards/nothing.csv", 404, "unknown board 'nothing'"),
        ("/api/entries?limit=0", 422, "query limit is refused"),
        ("/api/entries?offset=99999999999999999999", 422, "query offset is refused"),
        ("/api/entries?state=x", 422, "query state is refused"),
        ("/api/x", 404, "nothing at this address"),
    ],
)
def test_the_api_refuses_in_json(board: str, path: str, status: int, said: str) -> None:
    answer = ask(board, path)
    assert answer.status == status and list(answer.json) == ["error"] and said in answer.json["error"]


def test_what_can_be_asked_is_documented(board: str) -> None:
    schema = ask(board, "/openapi.json").json
    calls = {(method.upper(), path) for path, item in schema["paths"].items() for method in item}
    page = " ".join(Read(ask(board, "/api").text).text.split())
    assert len(calls) == 8 and all(f"{method} {path}" in page for method, path in calls)
    assert ask(board, "/docs").status == ask(board, "/redoc").status == 404
    assert ask(board, "/healthz").json == {"status": "ok"}
    assert ask(board, "/api/entries", "DELETE").headers["Allow"] == "GET, HEAD, POST"
    assert ask(board, "/submit", "PATCH").headers["Allow"] == "GET, HEAD, POST"
    assert ask(board, "/api/boards", "POST", b"").headers["Allow"] == "GET, HEAD"


def test_what_a_browser_has_is_not_sent_again(store: Any) -> None:
    with served(store) as server:
        first = ask(server, "/")
        tag = {"If-None-Match": f'"other", {first.headers["ETag"]}'}
        again = ask(server, "/", headers=tag)
        assert again.status == 304 and again.body == b"" and again.headers["ETag"] == first.headers["ETag"]
        assert ask(server, "/?mode=prompt", headers=tag).status == 200
        assert sent(server, packed()).status == 201
        assert ask(server, "/", headers=tag).status == 200


# Headers, hosts, sites.


def test_every_answer_has_the_headers(board: str) -> None:
    body, headers = form({})
    answers = [
        ask(board, "/"),
        ask(board, "/nothing"),
        ask(board, "/api/nothing"),
        ask(board, "/api/entries?limit=x"),
        ask(board, "/", "PUT"),
        ask(board, "/submit", "POST", body, headers),
        sent(board, b"no zip"),
        ask(board, "/", headers={"Host": "evil.example"}),
        ask(board, "/submit", "POST", body, {**headers, "Origin": "http://evil.example"}),
        ask(board, _links().asset("board.js")),
    ]
    assert [answer.status for answer in answers] == [200, 404, 404, 422, 405, 422, 422, 421, 403, 200]
    for answer in answers:
        assert answer.headers["Content-Security-Policy"].startswith(POLICY)
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Opener-Policy"] == answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] and answer.headers["Server"] is None


def test_head_is_get_without_a_body(full: Any, board: str) -> None:
    for path in ("/", "/submit", f"/api/entries/{full.entries()[0].id}", "/nothing", "/healthz"):
        got, head = ask(board, path), ask(board, path, "HEAD")
        assert (
            head.status == got.status and head.body == b"" and head.headers["Content-Length"] == got.headers["Content-Length"]
        )


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("LOCALHOST:1234", True),
        ("127.0.0.1:80", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:x", False),
        ("user@localhost", False),
        ("", False),
    ],
)
def test_names_that_a_loopback_server_answers_to(board: str, host: str, answered: bool) -> None:
    assert (ask(board, "/healthz", headers={"Host": host}).status == 200) == answered


def test_names_that_a_public_server_answers_to() -> None:
    from cotbench.leaderboard.web.settings import Settings

    public = Settings("0.0.0.0", token_required=True, hosts=("board.example.org",))
    assert public.answers("board.example.org:8000") and public.answers("10.1.2.3:8000") and public.answers("[fe80::1]:80")
    assert not public.answers("evil.example") and not public.answers("localhost")
    one = Settings("192.0.2.7", token_required=True)
    assert one.answers("192.0.2.7:8000") and not one.answers("192.0.2.8") and not one.answers("127.0.0.1")
    for host in ("0.0.0.0", "192.0.2.7", "::", "example.org"):
        with pytest.raises(UsageError, match="can be reached from other machines"):
            Settings(host)
    assert all(Settings(host).loopback for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),
        ({"Origin": "{server}"}, 422),
        ({"Origin": "{server}", "Sec-Fetch-Site": "same-origin"}, 422),
        ({"Sec-Fetch-Site": "none"}, 422),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "{server}.evil.example"}, 403),
        ({"Origin": "http://[x"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_no_other_site_can_submit(store: Any, headers: dict[str, str], status: int) -> None:
    with served(store) as server:
        given = {name: value.format(server=server) for name, value in headers.items()}
        assert sent(server, b"no zip", **given).status == status
        body, kind = form({"name": "x"}, b"no zip")
        assert ask(server, "/submit", "POST", body, {**kind, **given}).status == status
        assert store.count(None) == 0


# Submissions.


def test_a_submission_is_kept_once(store: Any) -> None:
    with served(store) as server:
        first = sent(server, packed())
        assert first.status == 201 and first.json["state"] == "pending"
        assert first.headers["Location"] == first.json["url"] == f"{server}/entries/{first.json['id']}"
        assert sent(server, packed()).status == 200
        other = sent(server, packed(), "?name=Somebody%20else")
        assert other.status == 409 and first.json["id"] in other.json["error"]
        assert store.count(None) == 1 and store.entry(first.json["id"]).unranked
        assert ask(server, f"/entries/{first.json['id']}").status == 200


def test_details_may_be_given_beside_the_bundle(store: Any) -> None:
    with served(store) as server:
        answer = sent(server, packed(), "?name=An%20agent&team=&link=https%3A//example.org/a")
        assert answer.status == 201
        details = store.entry(answer.json["id"]).details
        assert details.name == "An agent" and details.link == "https://example.org/a" and details.team == "The testers"
        again = sent(server, ask(server, f"/api/entries/{answer.json['id']}/bundle").body)
        assert again.status == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?name=%3Cb%3E", "name '<b>'"),
        ("?link=javascript:alert(1)", "link 'javascript:alert(1)'"),
        ("?name=" + "x" * 101, "name"),
    ],
)
def test_details_that_are_refused(store: Any, query: str, said: str) -> None:
    with served(store) as server:
        answer = sent(server, packed(), query)
        assert answer.status == 422 and said in answer.json["error"] and store.count(None) == 0


def test_what_is_no_zip_is_refused(store: Any) -> None:
    with served(store) as server:
        assert sent(server, b"x" * 1000).status == sent(server, b"").status == sent(server, packed()[:-100]).status == 422
        assert ask(server, "/api/entries", "POST", packed(), {"Content-Type": "text/plain"}).status == 415
        assert ask(server, "/api/entries", "POST", packed()).status == 415
        assert ask(server, "/submit", "POST", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}).status == 415
        assert ask(server, "/submit", "POST", b"junk", form({})[1]).status == 400
        assert store.count(None) == 0


def test_the_form_submits(store: Any) -> None:
    with served(store) as server:
        body, headers = form({"name": "Through the form", "team": "", "link": ""}, packed())
        answer = ask(server, "/submit", "POST", body, headers)
        entry = store.entries()[0]
        assert answer.status == 303 and answer.headers["Location"] == f"/entries/{entry.id}"
        assert entry.details.name == "Through the form" and entry.details.team == "The testers"
        body, headers = form({"name": "Somebody else", "team": "A <b>team", "link": "x"}, packed())
        refused = ask(server, "/submit", "POST", body, headers)
        page = Read(refused.text)
        assert refused.status == 422 and "The submission was refused" in page.text and "the entry's team" in page.text
        assert [each.get("value") for each in page.all("input")] == [None, "Somebody else", "A <b>team", "x"]
        body, headers = form({"name": "Somebody else"}, packed())
        assert ask(server, "/submit", "POST", body, headers).status == 409
        body, headers = form({"name": "No file"})
        assert "no bundle was chosen" in ask(server, "/submit", "POST", body, headers).text


def test_a_token_is_asked_for_and_never_shown(store: Any) -> None:
    token = store.new_token("somebody")
    with served(store, token_required=True) as server:
        assert sent(server, packed()).status == 401
        wrong = sent(server, packed(), Authorization="Bearer wrong")
        assert wrong.status == 401 and wrong.headers["WWW-Authenticate"] == "Bearer" and "wrong" not in wrong.text
        assert store.count(None) == 0
        assert sent(server, packed(), Authorization=f"Bearer {token}").status == 201
        body, headers = form({"token": "wrong-token", "name": "x"}, variant(1))
        refused = ask(server, "/submit", "POST", body, headers)
        assert refused.status == 401 and "wrong-token" not in refused.text
        body, headers = form({"token": token}, variant(1))
        assert ask(server, "/submit", "POST", body, headers).status == 303
        store.revoke("somebody")
        assert sent(server, variant(2), Authorization=f"Bearer {token}").status == 401
        assert 'type="password"' in ask(server, "/submit").text and ask(server, "/").status == 200


def test_tokens_cannot_be_tried_out(store: Any) -> None:
    token = store.new_token("somebody")
    with served(store, token_required=True) as server:
        answers = [sent(server, b"", Authorization=f"Bearer {number}") for number in range(14)]
        assert [answer.status for answer in answers] == [401] * 10 + [429] * 4
        late = sent(server, packed(), Authorization=f"Bearer {token}")
        assert late.status == 429 and 1 <= int(late.headers["Retry-After"]) <= 6 and store.count(None) == 0


# Limits.


def test_too_many_submissions(store: Any) -> None:
    with served(store, rate=5) as server:
        answers = [sent(server, b"no zip") for _ in range(8)]
        assert [answer.status for answer in answers] == [422] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12 and "try again in" in answers[-1].json["error"]
        assert ask(server, "/").status == 200


def test_rates() -> None:
    from cotbench.leaderboard.web.rate_limits import Rates

    clock = [0.0]
    rates = Rates(60, lambda: clock[0])
    assert [rates.wait("a") for _ in range(61)] == [0.0] * 60 + [1.0]
    assert rates.wait("b") == 0
    clock[0] = 0.25
    assert rates.wait("a") == pytest.approx(0.75)
    clock[0] = 10.0
    assert [rates.wait("a") > 0 for _ in range(11)] == [False] * 10 + [True]
    assert all(rates.wait("c", take=False) == 0 for _ in range(100))
    for number in range(20_000):
        rates.wait(str(number))
    assert len(rates._left) == 10_000


def _raw(server: str, text: bytes, more: Iterator[bytes] | tuple[bytes, ...] = ()) -> bytes:
    """What a server answers to bytes; as much as it says before it closes."""
    address = server.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=20) as connection:
        said = b""
        try:
            connection.sendall(text)
            for piece in more:
                if select.select([connection], [], [], 0)[0]:
                    break  # It has answered: what is sent to a closed connection could cost us the answer.
                connection.sendall(piece)
            while piece := connection.recv(65536):
                said += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return said


def _head(length: str) -> bytes:
    return f"POST /api/entries HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/zip\r\n{length}\r\n\r\n".encode()


def test_an_upload_that_says_it_is_too_long_is_not_read(store: Any) -> None:
    with served(store, max_bytes=10_000) as server:
        for length in ("10001", "10000000000", "9" * 400):
            answer = _raw(server, _head(f"Content-Length: {length}"))
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400")), answer[:100]
        assert b"413" in _raw(server, _head("Content-Length: 10000000000"))[:20]


def test_an_upload_that_does_not_say_its_length_is_cut(store: Any) -> None:
    with served(store, max_bytes=10_000) as server:
        pieces = (b"%x\r\n" % 5000 + b"x" * 5000 + b"\r\n" for _ in range(3))
        assert _raw(server, _head("Transfer-Encoding: chunked"), pieces).startswith(b"HTTP/1.1 413")
        answer = ask(server, "/api/entries", "POST", iter([b"x" * 100] * 3), {"Content-Type": "application/zip"})
        assert answer.status == 422
        body, headers = form({"name": "x" * 20_000})
        assert ask(server, "/submit", "POST", body, headers).status == 413
        assert ask(server, "/submit", "POST", iter([body]), headers).status == 413


def test_an_upload_that_never_ends_is_ended(store: Any) -> None:
    with served(store, upload_seconds=0.5) as server:
        began = time.monotonic()
        assert _raw(server, _head("Content-Length: 1000") + b"x").startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 5

        def drops() -> Iterator[bytes]:
            for _ in range(50):
                time.sleep(0.05)
                yield b"1\r\nx\r\n"

        began = time.monotonic()
        assert _raw(server, _head("Transfer-Encoding: chunked"), drops()).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 2, "not when the drops have ended"
        assert ask(server, "/healthz").status == 200


def test_a_failure_shows_nothing_of_itself(store: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from cotbench.errors import StoreError

    def fails(*_: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    with served(store) as server:
        monkeypatch.setattr(type(store), "entry", fails)
        page, json = ask(server, "/entries/000000000000"), ask(server, "/api/entries/000000000000")
        assert page.status == json.status == 500 and "secret" not in page.text + json.text and list(json.json) == ["error"]
        assert page.headers["Content-Security-Policy"] and "a secret of the inside" in caplog.text

        def gone(*_: Any) -> Any:
            raise StoreError("the leaderboard's database /home/somebody/board.sqlite says: disk I/O error")

        monkeypatch.setattr(type(store), "changes", gone)
        down = ask(server, "/")
        assert down.status == ask(server, "/healthz").status == 503 and "somebody" not in down.text


# Many at once.


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_many_submissions_at_once(store: Any, count: int) -> None:
    new = count - 10
    data = [variant(number) for number in range(new)]
    with served(store, connections=400) as server:
        start = threading.Barrier(count)

        def one(number: int) -> Answer:
            start.wait(60)
            return sent(server, data[number % new])

        with ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(one, range(count)))
    # Ten were sent twice, at the same time: one of the two is new.
    assert [answer.status for answer in answers[10:new]] == [201] * (new - 10)
    assert [sorted((answers[n].status, answers[new + n].status)) for n in range(10)] == [[200, 201]] * 10
    ids = {answer.json["id"] for answer in answers}
    assert len(ids) == store.count(None) == new and ids == {entry.id for entry in store.entries()}


SERVE = """
import sys
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.web.app import server_of
from cotbench.leaderboard.web.settings import Settings
server_of(Store.open(sys.argv[1]), Settings(port=int(sys.argv[2]))).run()
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import unpack
    from tests.served import unused_port

    data, path, port = [variant(number) for number in range(60)], tmp_path / "board.sqlite", unused_port()
    acknowledged: set[str] = set()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVE, str(path), str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    server = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                ask(server, "/healthz")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)

        def one(number: int) -> None:
            try:
                answer = sent(server, data[number])
            except Exception:
                return
            assert answer.status == 201
            acknowledged.add(answer.json["id"])
            if len(acknowledged) >= 20:
                process.send_signal(signal.SIGKILL)

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(one, range(60)))
    finally:
        process.kill()
        process.wait()
    with Store.open(path) as store:
        kept = {entry.id for entry in store.entries()}
        assert 20 <= len(acknowledged) < 60 and acknowledged <= kept
        assert all(unpack(store.bundle(entry)).digest.startswith(entry) for entry in kept)
        with served(store) as again:
            assert ask(again, "/?state=pending").status == 200
            assert {sent(again, each).status for each in data} == {200, 201}
        assert store.count(None) == 60
