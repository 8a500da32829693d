"""A page as it is written: what was written by models stays text, nothing is lost, nothing depends on who writes it."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cotbench.errors import UsageError
from cotbench.report.browser import browsed, effect_of, episodes_json
from cotbench.report.cells import csv_text, estimate_text, render_table
from cotbench.report.colours import DARK, LIGHT, STEPS, others_of, styles
from cotbench.report.drawing import figure_pdf, panel_svgs
from cotbench.report.folding import fold_table
from cotbench.report.html import PAGE_BYTES, script_source, write_report
from cotbench.report.latex import latex_escape, latex_table
from cotbench.report.page import BrowsedRun, Card, Figure, Line, Page, Panel, Section, Table
from cotbench.report.typography import typeset, typeset_name
from cotbench.runs.episode import Episode
from cotbench.stats.estimates import Estimate
from tests.cotbench.report.pages import HOSTILE, Read, episode, estimate, hostile_page, needs_report, step

pytestmark = needs_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert write_report(hostile_page(), out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def read(folder: Path) -> Read:
    return Read((folder / "index.html").read_text("utf-8"))


def test_what_others_wrote_is_text(read: Read) -> None:
    assert [attributes.get("type") for attributes in read.all("script")] == ["application/json", None]
    assert len(read.styles) == 1 and not read.all("img")
    for tag, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    for text in HOSTILE[:3]:
        assert " ".join(text.split()) in " ".join(read.text.split())
    assert len(re.findall(r"\[n=1\]", read.text)) >= 2


def test_the_episodes_come_back_as_they_were(read: Read) -> None:
    (run,) = json.loads(read.scripts[0])["runs"]
    (page_run,) = hostile_page().runs
    first, second = page_run.episodes
    assert (run["label"], run["of"]) == (HOSTILE[0], 2)
    assert [one["task"] for one in run["episodes"]] == [first.task, second.task]
    assert run["episodes"][0]["steps"] == [
        {
            "action": HOSTILE[0],
            "prompt": HOSTILE[1],
            "expert": HOSTILE[0],
            "trace": "".join(HOSTILE[:3]),
            "invalid": HOSTILE[1],
            "observation": HOSTILE[0],
            "score": 0.0,
            "effect": "helped",
        },
        {
            "action": HOSTILE[2],
            "prompt": HOSTILE[2],
            "trace": HOSTILE[2],
            "observation": "You see nothing.",
            "score": 0.0,
            "effect": "same",
        },
    ]
    assert run["episodes"][1]["error"] == HOSTILE[2] and run["episodes"][1]["ending"] == "error"
    assert not re.search("[<>&]", read.scripts[0])


def test_the_policy_allows_this_style_and_this_script_alone(read: Read) -> None:
    (policy,) = [
        each["content"] for each in read.all("meta") if (each.get("http-equiv") or "").lower() == "content-security-policy"
    ]
    assert policy is not None

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert policy.startswith("default-src 'none'; ")
    assert f"style-src {hashed(read.styles[0])};" in policy and f"script-src {hashed(read.scripts[1])};" in policy
    assert hashed(read.scripts[1]) == script_source(), "what a server of the page allows"
    assert "unsafe" not in policy and "http" not in policy
    assert "innerHTML" not in read.scripts[1] and "fetch(" not in read.scripts[1]


def test_nothing_is_fetched(read: Read) -> None:
    for tag, attributes in read.elements:
        for name in ("src", "href", "data", "action"):
            link = attributes.get(name)
            if link is not None:
                assert link.startswith(("#", "figures/", "tables/")) or link == "data:,", (tag, link)


def test_every_id_is_there_once_and_every_reference_leads_somewhere(read: Read, folder: Path) -> None:
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        for name, value in attributes.items():
            for target in re.findall(r"^#(.+)|url\(#([^)]+)\)", value or "") if name != "d" else []:
                assert "".join(target) in ids, (name, value)
            if name in ("aria-labelledby", "aria-describedby"):
                assert set((value or "").split()) <= set(ids)
            if name == "href" and (value or "").startswith(("figures/", "tables/")):
                assert (folder / str(value)).is_file()


def _estimates(page: Page) -> Iterator[tuple[Estimate, bool]]:
    for section in page.sections:
        for item in section.items:
            if isinstance(item, Table):
                yield from (
                    (cell, name in item.signed)
                    for row in item.rows
                    for name, cell in zip(item.columns, row, strict=True)
                    if isinstance(cell, Estimate)
                )
            else:
                yield from ((y, False) for panel in item.panels for line in panel.lines for y in line.y)


def test_every_estimate_stands_on_the_page_with_its_interval(read: Read) -> None:
    text = " ".join(read.text.split())
    found = list(_estimates(hostile_page()))
    assert len(found) == 17
    for one, signed in found:
        if one.mean is not None:
            assert typeset(estimate_text(one, signed)) in text, one
    assert "n=7" in text and "n=9" in text


def test_the_numbers_of_a_figure_are_told_to_who_cannot_see_it(read: Read) -> None:
    assert len([each for each in read.all("svg") if each.get("role") == "img"]) == 3
    assert f"0: {estimate_text(estimate(0.31))}; 1: {estimate_text(estimate(0.42))}." in read.text


def test_tables_have_captions_and_scopes(read: Read) -> None:
    assert len(read.all("caption")) == len(read.all("table")) == 3
    assert all(each.get("scope") in ("col", "row") for each in read.all("th"))
    assert read.elements[[tag for tag, _ in read.elements].index("body") + 1] == ("a", {"class": "skip", "href": "#content"})


def test_csv_reads_back(folder: Path) -> None:
    table = pd.read_csv(folder / "tables" / "numbers.csv")
    assert list(table.columns[1:7]) == ["count", "p", "gap", "gap low", "gap high", "gap n"]
    assert table["count"].tolist() == [3, -4] and table["p"].tolist() == [0.123456789, 1e-9]
    assert table["gap"].tolist() == [-0.2, 123.456] and table["gap n"].tolist() == [7, 9]
    assert table["gap low"].tolist() == [estimate(-0.2).low, estimate(123.456).low]
    assert table.iloc[0, 0] == HOSTILE[0]
    curves = pd.read_csv(folder / "figures" / "curves.csv")
    assert len(curves) == 10 and curves.iloc[0].tolist()[-5:] == [0.31, estimate(0.31).low, estimate(0.31).high, 7, "0.3 0.32"]


def test_no_cell_of_a_csv_is_a_formula(folder: Path) -> None:
    table = pd.read_csv(folder / "tables" / "numbers.csv")
    assert table.columns[7] == "'=1+1"
    assert table.iloc[:, 7].tolist() == ["'=1+1", "'-1+1"]
    assert table.iloc[1, 0] == "'@SUM(A1)" and table.iloc[1, 8] == "'\t=1"
    text = csv_text(Table("t", "", "", ("a",), (("\r=1",), ("+1",), ("fine - text",), (-1,), (-1.5,))))
    assert pd.read_csv(io.StringIO(text), keep_default_na=False)["a"].tolist() == ["'\r=1", "'+1", "fine - text", "-1", "-1.5"]


def test_every_figure_is_a_pdf(folder: Path) -> None:
    for name in ("curves", "bars"):
        content = (folder / "figures" / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF") and b"%%EOF" in content[-10:]
        assert b"/Type3" not in content  # Journals refuse such fonts.


def test_the_same_page_gives_the_same_bytes_whatever_the_settings_are(folder: Path, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        write_report(hostile_page(), tmp_path)
        assert dict(matplotlib.rcParams) == before
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 9
    for path in files:
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_a_page_without_episodes_runs_no_script(tmp_path: Path) -> None:
    bare = Read(write_report(Page("t", ("a",), (Section("s", ""),)), tmp_path).read_text("utf-8"))
    assert not bare.scripts and "script-src 'none'" in str(bare.elements)


def test_names_that_are_no_files_and_names_twice_are_refused(tmp_path: Path) -> None:
    table = Table("fine", "", "", ("a",), ((1,),))
    for items, message in (
        ((replace(table, name="../evil"),), "name its file"),
        ((table, table), "two tables are called 'fine'"),
        ((replace(table, rows=((1, 2),)),), "1 columns and a row of 2 cells"),
        ((replace(table, signed=frozenset({"b"})),), "no column 'b'"),
    ):
        with pytest.raises(ValueError, match=message):
            write_report(Page("t", (), (Section("s", "", items),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="choose another --out"):
        write_report(Page("t", (), (Section("s", "", (table,)),)), tmp_path / "file")


def test_n_is_said_once_where_it_is_the_same() -> None:
    def beside(*rows: tuple[Estimate, ...]) -> list[list[str]]:
        table = render_table(Table("t", "", "", ("a", "b"), rows))
        return [[cell.beside.rpartition("]")[2].strip() for cell in row] for row in table.rows]

    five, six = estimate(0.1, 5), estimate(0.1, 6)
    assert beside((five, five), (five, five)) == [["", ""], ["", ""]]
    assert beside((five, five), (six, six)) == [["n=5", ""], ["n=6", ""]]
    assert beside((five, six), (six, six)) == [["n=5", "n=6"], ["n=6", "n=6"]]


def test_colours_can_be_read_on_both_papers() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    assert set(LIGHT) == set(DARK) and len(set(LIGHT.values())) == len(LIGHT)
    for colours in (LIGHT, DARK):
        for name, colour in colours.items():
            for paper in ("paper", "wash"):
                bright, dim = sorted((light(colour), light(colours[paper])), reverse=True)
                if name not in ("paper", "wash", "rule", "grid", "shade"):
                    assert (bright + 0.05) / (dim + 0.05) >= (3 if name in STEPS else 4.5), (name, paper)
        steps = [light(colours[name]) for name in STEPS]
        assert steps == sorted(steps, reverse=colours is LIGHT)  # More contrast to the paper, step by step.


def test_a_line_looks_the_same_in_every_figure() -> None:
    y = (estimate(0.5),)
    one = Figure(
        "one", "", "", "", "", (Panel("", (Line("sft", (0,), y), Line("a", (0,), y, "prompt"), Line("b", (0,), y, "prompt"))),)
    )
    two = Figure(
        "two", "", "", "", "", (Panel("", (Line("dpo", (0,), y), Line("sft", (0,), y), Line("a", (0,), y, "prompt"))),)
    )
    others = others_of([one, two])
    first, second = styles(one, others), styles(two, others)
    assert first[Line("sft", (0,), y)] == second[Line("sft", (0,), y)] != second[Line("dpo", (0,), y)]
    a, b = (first[Line(label, (0,), y, "prompt")] for label in "ab")
    assert a.colour == b.colour == "prompt" and a.dashes != b.dashes and a.marker != b.marker
    assert second[Line("a", (0,), y, "prompt")] == a


def test_an_arm_has_one_colour_and_checkpoints_a_scale() -> None:
    y = (estimate(0.5),)
    arm, form, other = Line("sft", (0,), y), Line("sft, direct path", (0,), y, group="sft"), Line("dpo", (0,), y)
    grey = Line("uniform", (0,), y, "neutral")
    figure = Figure("one", "", "", "", "", (Panel("", (arm, form, other, grey)),))
    found = styles(figure, others_of([figure]))
    assert found[arm].colour == found[form].colour != found[other].colour
    assert found[arm].dashes != found[form].dashes and len(set(found.values())) == 4
    assert found[grey].colour not in {found[line].colour for line in (arm, other)}
    steps = [Line(f"after {share}", (0,), y, "checkpoint") for share in (0, 50, 100)]
    cut = Line("after 50, cut", (0,), y, "checkpoint", group="after 50")
    checkpoints = styles(Figure("two", "", "", "", "", (Panel("", (*steps, cut)),)), {})
    assert [checkpoints[line].colour for line in (*steps, cut)] == [STEPS[0], STEPS[2], STEPS[4], STEPS[2]]


def test_signs_are_true_ones_and_names_stay() -> None:
    assert typeset("-0.21 [-0.42, +0.00], from -1 to 95 %") == "−0.21 [−0.42, +0.00], from −1 to 95%"
    assert typeset("CoT - prompt") == "CoT − prompt"
    for name in ("2026-11-27", "sft-2", "ood_pair-3", "1e-09", "--out -o", "8-12", "hf:tiny-cot"):
        assert typeset(name) == typeset_name(name) == name
    assert typeset_name("win rate of the cot action") == "win rate of the CoT action"


def test_rows_are_grouped_by_split() -> None:
    rows = (("sft", "id", 1), ("sft", "ood", 2), ("sft+", "id", 3), ("sft+", "ood", 4))
    table = Table("t", "", "", ("arm", "split", "n"), rows)
    found = render_table(table)
    assert found.groups == (("id", 2), ("ood", 2)) and [column.name for column in found.columns] == ["arm", "n"]
    assert [[cell.value for cell in row] for row in found.rows] == [["sft", "1"], ["sft+", "3"], ["sft", "2"], ["sft+", "4"]]
    one = render_table(replace(table, rows=rows[:1]))
    assert one.groups == (("", 1),) and len(one.columns) == 3
    assert csv_text(table).splitlines()[2] == "sft,ood,2"  # The files keep the order and the column.


def test_a_wide_table_is_folded_and_loses_no_column(tmp_path: Path) -> None:
    names = [f"share {number}" for number in range(20)]
    table = Table("wide", "Wide", "", ("arm", "split", *names), tuple((arm, "id", *[estimate(0.5)] * 20) for arm in "ab"))
    folded = fold_table(render_table(table))
    shown = [[column.name for column in part.columns] for part in (folded.head, *folded.more)]
    assert [name for part in shown for name in part[2:]] == names and all(part[:2] == ["arm", "split"] for part in shown)
    assert folded.left == 20 - len(shown[0][2:]) > 0
    page = Read(write_report(Page("t", (), (Section("s", "", (table,)),)), tmp_path).read_text("utf-8"))
    assert f"{folded.left} more columns" in page.text and len(page.all("table")) == len(shown)
    assert not fold_table(folded.head).more


def test_latex_has_the_tables_and_no_commands_of_others(folder: Path) -> None:
    text = (folder / "tables" / "numbers.tex").read_text("utf-8")
    body = text.partition("\\midrule\n")[2]
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1 and "\\bottomrule" in text
    lines = body.partition("\n\\bottomrule")[0].splitlines()
    assert len(lines) == 2 and all(len(re.findall(r"(?<!\\)&", line)) == 5 and line.endswith(" \\\\") for line in lines)
    assert r"$-$0.20 {\scriptsize [$-$0.31, $-$0.07] n=7}" in lines[0]
    assert (folder / "figures" / "curves.tex").is_file()
    assert latex_escape("\\input{x} 100% $a_b^c$ #1 & ~ \n<>") == (
        r"\textbackslash{}input\{x\} 100\% \$a\_b\textasciicircum{}c\$ \#1 \& \textasciitilde{} \textless{}\textgreater{}"
    )
    grouped = latex_table(Table("t", "", "", ("arm", "split", "n"), (("[a", "id", 1), ("b", "ood", 2))))
    assert r"\multicolumn{2}{@{}l}{\emph{id}} \\" in grouped and "\n{}[a & 1" in grouped


def test_cards_claims_and_notes_come_first(tmp_path: Path) -> None:
    claims = Table("claims", "Claims", "", ("claim", "verdict"), (("it rises", "cannot tell"),))
    card = Card("Gap", estimate(-0.2, 24), "CoT - prompt; sft, id", signed=True)
    page = Page("t", ("An answer.",), (), claims=claims, verdict="Of 1 claim, 0.", cards=(card,), notes=("How.",))
    text = " ".join(Read(write_report(page, tmp_path).read_text("utf-8")).text.split())
    order = [
        text.index(part) for part in ("Of 1 claim", "it rises", "Gap −0.20 [−0.31, −0.07], n = 24 tasks", "An answer.", "How.")
    ]
    assert order == sorted(order) and "CoT − prompt; sft, id" in text


def test_figures_for_a_paper_have_the_width_of_columns_and_no_title(folder: Path, tmp_path: Path) -> None:
    def width(path: Path) -> float:
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", path.read_bytes())
        assert box is not None
        return float(box[1]) / 72

    assert width(folder / "figures" / "curves.pdf") == pytest.approx(6.75)
    assert width(folder / "figures" / "bars.pdf") == pytest.approx(3.25)
    line = Line("a", (0.0, 1.0), (estimate(0.2), estimate(0.4)), "cot")
    figure = Figure("f", "A title", "", "x", "y", (Panel("id", (line,)),))
    sans, serif = (figure_pdf(figure, styles(figure, {}), font) for font in ("sans", "serif"))
    assert b"DejaVuSans" in sans and b"STIX" in serif and b"DejaVuSans" not in serif


def test_no_text_of_a_figure_is_smaller_than_12_pixels() -> None:
    figure = next(item for item in hostile_page().sections[0].items if isinstance(item, Figure))
    for svg in panel_svgs(figure, styles(figure, others_of([figure]))):
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:bold |\d00 )?([\d.]+)px", svg)]
        assert sizes and min(sizes) >= 12
        assert float(re.findall(r'width="([\d.]+)pt"', svg)[0]) <= 340  # The page's panels are at least as wide.


def test_what_is_drawn_stands_where_the_number_is() -> None:
    """The bar of 0.5 is half as long as that of 1; read off the SVG."""
    line = Line("x", (0.0, 1.0), (estimate(1.0), estimate(0.5)), "cot")
    figure = Figure("f", "", "", "", "", (Panel("", (line,), labels=("a", "b")),), (0.0, 1.2))
    (svg,) = panel_svgs(figure, styles(figure, {}))
    bars = re.findall(r'd="M ([\d.]+) [\d.]+ L ([\d.]+) [^"]*"[^>]*fill: ' + LIGHT["cot"], svg.replace("\n", ""))
    widths = [float(right) - float(left) for left, right in bars[:2]]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=1e-4)


def _many(tasks: int, size: int) -> list[Episode]:
    """Tasks of all kinds; few help, few hurt."""
    found = []
    for number in range(tasks):
        prompt, expert = {0: ("a", "b"), 1: ("a", "a"), 2: ("a", "c")}.get(number % 50, ("b", "b"))
        steps = [step("b", prompt, expert, "<&>" * size)]
        found.append(episode(f"task/{number}", "cot", number % 3 == 0, steps))
        found.append(episode(f"task/{number}", "prompt", False, [step("b")]))
    return found


def test_a_page_stays_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    runs = (BrowsedRun("one", tuple(_many(300, 1900))), BrowsedRun("two", tuple(_many(40, 1900)), of=900))
    path = write_report(Page("t", (), (), runs=runs), tmp_path, episode_bytes=PAGE_BYTES * 2)
    page = Read(path.read_text("utf-8"))
    assert PAGE_BYTES * 0.9 < path.stat().st_size < PAGE_BYTES
    embedded = json.loads(page.scripts[0])["runs"]
    shown = sum(len(run["episodes"]) for run in embedded)
    assert f"{shown} of 1500 episodes are in this page" in page.text
    assert [run["of"] for run in embedded] == [600, 900]


def test_a_budget_keeps_every_kind_and_the_same_ones() -> None:
    run = BrowsedRun("one", tuple(_many(300, 10)))
    (some,) = browsed([run], 20_000)
    assert some.of == 600 and 0 < len(some.episodes) < 120
    assert len(episodes_json([some])) < 20_100
    tasks = {each.task for each in some.episodes}
    assert all(sum(each.task == task for each in some.episodes) == 2 for task in tasks)
    kinds = {(effect_of(each.trajectory[0]), each.success) for each in some.episodes if each.mode == "cot"}
    assert kinds == {(effect, won) for effect in ("same", "helped", "hurt", "revised") for won in (True, False)}
    assert browsed([run], 20_000) == (some,) != browsed([run], 20_000, seed=1)
    assert browsed([run], 10_000_000)[0].episodes == run.episodes


def test_what_a_trace_did() -> None:
    cases = {("b", "a", "b"): "helped", ("b", "a", "a"): "hurt", ("b", "a", "c"): "revised", ("b", "a", None): "revised"}
    cases |= {("b", "b", "a"): "same", ("b", None, "b"): None}
    for (action, prompt, expert), effect in cases.items():
        assert effect_of(step(action, prompt, expert)) == effect
