"""The leaderboard's front: what is measured, all environments, success against tokens, models and names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cotbench.leaderboard.boards.view import BoardView, Standing, named_rows
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.model_facts import ModelFacts, model_facts, size_text
from cotbench.stats.estimates import Estimate
from tests.cotbench.report.pages import Read
from tests.leaderboard.serving import needs_web

pytestmark = needs_web
SPLIT = Board("alfworld-gen", "paper", "id", "cot")


def _rate(mean: float) -> Estimate:
    return Estimate(n=120, mean=mean, low=mean - 0.1, high=mean + 0.1)


def _standing(name: str, success: float, tokens: float, rank: int | None = 1, **more: Any) -> Standing:
    rate = _rate(success)
    found = Standing(
        rank=rank,
        details=Details(name=name, team="Us", link="https://example.org/paper"),
        entries=(name.encode().hex()[:12].ljust(12, "0"),),
        agent="hf:made",
        state="replayed",
        level="replayed",
        baseline=False,
        unranked=(),
        tasks=120,
        fingerprint="0" * 16,
        submitted=datetime(2026, 1, 2, tzinfo=UTC),
        success=rate,
        score=rate,
        behind=None,
        gap=None,
        consistency=None,
        tokens=Estimate(n=120, mean=tokens, low=tokens, high=tokens),
        computed=rate,
    )
    return replace(found, **more)


def _page(*rows: Standing, name: str = "") -> str:
    from cotbench.leaderboard.web.assets import assets
    from cotbench.leaderboard.web.board_query import BoardQuery
    from cotbench.leaderboard.web.links import ServerLinks
    from cotbench.leaderboard.web.pages import board_page

    links = ServerLinks({one: asset.filename for one, asset in assets().items()})
    view = BoardView(SPLIT, rows, (), {"replayed": len(rows), "pending": 0, "rejected": 0, "unchecked": 0})
    return board_page(view, BoardQuery(SPLIT, name=name), [SPLIT], links)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import repack
    from tests.leaderboard.stored import bundle

    with Store.open(tmp_path_factory.mktemp("front") / "board.sqlite") as opened:
        for number, (name, agent) in enumerate((("Weak", "hf:made"), ("Strong", "hf:made"), ("Chance", "random"))):
            made = bundle(name, 0.2 + 0.5 * (name == "Strong"), seed=number, agent=agent, mode="cot")
            facts = {**made.manifest.agent, "parameters": 1_800_000, "weights_sha256": "0" * 64}
            made = replace(made, manifest=made.manifest.model_copy(update={"agent": facts}))
            opened.settle(opened.add(made, (), repack(made))[0].id, None, with_versions={})
        yield opened


def test_the_front_says_what_is_measured_and_shows_every_environment(store: Any, tmp_path: Path) -> None:
    from cotbench.envs.registry import env_entries
    from cotbench.leaderboard.web.site import write_site

    page = write_site(store, tmp_path / "site").read_text("utf-8")
    text = " ".join(Read(page).text.split())
    assert "measures whether a language-model agent’s reasoning changes its actions" in text
    overview = page[page.index('class="overview"') : page.index("</section>", page.index('class="overview"'))]
    for entry in env_entries():
        assert f'<th scope="row">{entry.title}</th>' in overview
    assert "Strong" in overview and "Weak" not in overview and "Chance" not in overview
    assert "3 replayed entries" in overview and "no entry yet" in overview
    assert "boards/alfworld-gen_paper_id_cot.html" in overview
    other = (tmp_path / "site" / "boards" / "alfworld-gen_paper_id_cot.html").read_text("utf-8")
    assert 'class="overview"' not in other and "measures whether" in other


def test_a_board_has_the_model_as_submitted(store: Any) -> None:
    from cotbench.leaderboard.boards.view import board_view
    from cotbench.leaderboard.web.board_table import board_csv

    rows = board_view(store, SPLIT).rows
    assert [(row.details.name, row.parameters, row.weights) for row in rows] == [
        ("Strong", 1_800_000, "open"),
        ("Weak", 1_800_000, "open"),
        ("Chance", None, ""),
    ]
    assert "parameters (self-reported),weights (self-reported)" in board_csv(rows).splitlines()[0]
    text = " ".join(Read(_page(*rows)).text.split())
    assert "1.8 M open" in text and "Dollars per episode" not in text
    priced = _page(replace(rows[0], dollars=_rate(0.25)), *rows[1:])
    assert "0.2500" in priced and "Dollars" in Read(priced).text


def test_facts_of_a_model_are_what_the_manifest_says() -> None:
    known = {"parameters": 4_022_468_096, "weights_sha256": "a" * 64}
    assert model_facts("hf:Qwen/Qwen3-4B", known) == ModelFacts(parameters=4_022_468_096, weights="open")
    assert model_facts("hf:./checkpoint", known).weights == "own"
    both = known | {"writer": {"parameters": 1_800_000, "weights_sha256": "b" * 64}}
    assert model_facts("frodo:Qwen/Qwen3-4B,tiny", both) == ModelFacts(parameters=4_024_268_096, weights="open")
    assert model_facts("frodo:Qwen/Qwen3-4B,./answerer", both).weights == "own"
    assert model_facts("frodo:a,b", known | {"writer": {"weights_sha256": "b" * 64}}).parameters is None
    assert model_facts("openai:gpt@https://x", {}) == ModelFacts()
    assert model_facts("random", known) == ModelFacts()
    for wrong in ("many", -1, True, 10**18, None):
        assert model_facts("hf:x", {"parameters": wrong}).parameters is None
    assert [size_text(size) for size in (None, 900, 1_800_000, 135_000_000, 4_022_468_096)] == [
        "–",
        "900",
        "1.8 M",
        "135 M",
        "4.0 B",
    ]


def test_baselines_are_set_apart_by_a_word_and_replayed_from_self_reported_columns_by_a_sign() -> None:
    page = _page(_standing("A", 0.5, 100.0), _standing("Chance", 0.1, 0.0, None, baseline=True))
    row = page[page.index('<tr class=" baseline">') :]
    assert "baseline, not a model" in row[: row.index("</tr>")] and "of-baseline" in row[: row.index("</tr>")]
    assert 'class="replayed">● replayed' in page and 'class="self-reported">○ self-reported' in page
    assert page.count('class="number claimed"') == 4
    assert 'href="https://example.org/paper" rel="nofollow noopener noreferrer"' in page


def test_names_and_teams_are_filtered_and_the_links_keep_the_filter() -> None:
    rows = (_standing("Alpha", 0.5, 10.0), _standing("Beta", 0.4, 10.0, 2, details=Details(name="Beta", team="Alphabet")))
    assert [row.details.name for row in named_rows(rows, " ALPHA ")] == ["Alpha", "Beta"]
    assert named_rows(rows, "beta") == [rows[1]] and named_rows(rows, "") == list(rows)
    page = Read(_page(*rows, name="beta"))
    assert "Beta" in page.text and "1 replayed entry with “beta” in name or team" in page.text.replace("\n", " ")
    assert all("name=beta" in str(link["href"]) for link in page.all("a") if "sort=" in str(link["href"]))
    assert "No entry here has this name or team." in Read(_page(*rows, name="gamma")).text


def test_the_frontier_is_what_no_other_beats_with_as_few_tokens() -> None:
    from cotbench.leaderboard.web.pareto import HEIGHT, pareto_plot

    rows = [
        _standing("cheap", 0.3, 10.0),
        _standing("beaten", 0.2, 50.0),
        _standing("good", 0.8, 99.0),
        _standing("dear", 0.7, 900.0),
        _standing("expert", 1.0, 0.0, None, baseline=True),
    ]
    plot = pareto_plot(rows)
    assert plot is not None and plot.about == "cheap, 0.30 with 10 tokens; good, 0.80 with 99 tokens"
    by_name = {point.about.partition(":")[0]: point for point in plot.points}
    assert (by_name["expert"].kind, by_name["expert"].y) == ("baseline", "0.0")
    assert float(by_name["cheap"].y) == pytest.approx(0.7 * HEIGHT)
    places = [float(by_name[name].x.rstrip("%")) for name in ("expert", "cheap", "beaten", "good", "dear")]
    assert places == sorted(places) and places[0] > 0 and places[-1] < 100
    assert [point.name for point in plot.points if point.name] == ["cheap", "good"]
    assert (plot.frontier[0].x1, plot.frontier[0].y1) == (by_name["cheap"].x, by_name["cheap"].y)
    assert plot.ticks[0] == ("10.00%", "0") and [words for _, words in plot.ticks] == ["0", "10", "100"]
    assert pareto_plot(rows[:1]) is None
    page = _page(*rows)
    assert (
        "<svg" in page and "On the frontier: cheap, 0.30 with 10 tokens" in page and "<script" not in page.partition("<main")[2]
    )
