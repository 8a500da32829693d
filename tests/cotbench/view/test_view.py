"""The page over a folder, on a real server: what is shown is what is there, live; nothing is taken for markup, nothing outside
of the folder is read, and no folder is too damaged for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import cotbench
from cotbench.cli import run_cli
from cotbench.file_lock import file_lock
from cotbench.installation import install_command
from cotbench.runs import runner
from cotbench.runs.episode import EPISODES, Journal
from cotbench.runs.folder import LOCK
from cotbench.runs.manifest import MANIFEST, RunConfig
from tests.cotbench.report.pages import HOSTILE, Read, Slips, episode, step
from tests.cotbench.view.serving import Served, needs_view, served

pytestmark = needs_view
SLIPS = RunConfig(agent="slips", episodes=4, max_steps=6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `first` and `second` of one agent with two seeds, `other` in prompt mode alone, and a begun study `small`."""
    from cotbench.study.config import read_study
    from cotbench.study.folder import begin, only_one, write_mark
    from cotbench.study.plan import make_study_plan

    root = tmp_path_factory.mktemp("view")
    runner.run(SLIPS, out=root / "first", agent=Slips())
    runner.run(SLIPS.model_copy(update={"max_steps": 7}), out=root / "second", agent=Slips())
    runner.run(RunConfig(agent="random", episodes=2, max_steps=2, mode="prompt"), out=root / "deep" / "other")
    plan = make_study_plan(read_study("smoke"))
    with only_one(root / "small"):
        begin(root / "small", plan)
        write_mark(root / "small", plan.stages[0], 12.0)
    return root


@pytest.fixture(scope="module")
def view(root: Path) -> Iterator[Served]:
    with served(root) as server:
        yield server


def _text(view: Served, path: str, status: int = 200) -> str:
    answer = view.get(path)
    assert answer.status == status, answer.text
    return " ".join(Read(answer.text).text.split())


def test_the_list_shows_runs_and_studies_as_they_are(view: Served) -> None:
    text = _text(view, "/")
    assert "4 runs" not in text and "3 runs." in text
    for words in ("first slips alfworld-gen paper/id, seed 0 8/8", "deep/other random", "smoke small 1/43", "interrupted"):
        assert words in text, words
    assert "0.00 [0.00, 0.66]" in text, "0 of 2 by Wilson"


def test_filters_are_in_the_address(view: Served) -> None:
    text = _text(view, "/?agent=random")
    assert "1 of 3 runs" in text and "deep/other" in text and "slips alfworld-gen" not in text
    assert "No run passes these filters" in _text(view, "/?agent=random&mode=both")
    assert "No run passes these filters" in _text(view, f"/?env={quote(HOSTILE[0])}&nonsense=1")


def test_a_run_has_its_numbers_and_its_episodes(view: Served, root: Path) -> None:
    from cotbench.runs.results import load_run
    from cotbench.stats.formatting import format_estimate

    answer = view.get("/run?folder=first")
    summary = load_run(root / "first").summary
    text = " ".join(Read(answer.text).text.split())
    assert format_estimate(summary.modes["cot"].success) in text and "8 of 8 episodes" in text
    (data,) = [script for script in Read(answer.text).scripts if script.strip().startswith("{")]
    (run,) = json.loads(data)["runs"]
    assert run["label"] == "first" and run["of"] == len(run["episodes"]) == 8


def test_a_study_has_its_stages(view: Served) -> None:
    text = _text(view, "/study?folder=small")
    assert "1 of 43 stages" in text and "None has begun yet" in text and "interrupted" in text
    with file_lock(view.library.root / "small" / LOCK):
        view.now()
        assert "running 1 of 43 stages about" in _text(view, "/study?folder=small")


def _write_report(study: Path) -> None:
    for name in ("figures", "tables"):
        (study / "report" / name).mkdir(parents=True, exist_ok=True)
    (study / "report" / "index.html").write_text("<!doctype html><title>The report</title>")
    (study / "report" / "figures" / "alignment.pdf").write_bytes(b"%PDF-1.4")
    (study / "report" / "tables" / "claims.csv").write_text("claim,verdict\n")
    (study / "report" / "notes.txt").write_text("secret")


def test_a_studys_page_leads_to_its_report_which_runs_nothing_but_its_own_script(root: Path, tmp_path: Path) -> None:
    folders = {"a study, 1": tmp_path / "many" / "a study, 1", ".": tmp_path / "one"}
    for name, folder in folders.items():
        shutil.copytree(root / "small", folder)
        with served(folder.parent if name != "." else folder) as view:
            address = f"/study?folder={quote(name)}"
            assert "/report/" not in view.get(address).text
            _write_report(folder)
            view.now()
            (link,) = re.findall(r'href="(/report/[^"]*)"', view.get(address).text)
            page = view.get(link)
            assert page.status == 200 and "<title>The report</title>" in page.text
            policy = page.headers["Content-Security-Policy"]
            assert (
                policy.startswith("sandbox allow-scripts allow-downloads; default-src 'none';") and "connect-src" not in policy
            )
            assert re.search(r"script-src 'sha256-[^' ]+';", policy) and "allow-same-origin" not in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff" and page.headers["X-Frame-Options"] == "DENY"
            for beside in ("figures/alignment.pdf", "tables/claims.csv"):
                answer = view.get(link.removesuffix("index.html") + beside)
                assert answer.status == 200 and answer.headers["Content-Disposition"].startswith("attachment")


def test_nothing_beside_a_report_and_nothing_outside_of_its_study_is_given(root: Path, tmp_path: Path) -> None:
    for name in ("linked", "through", "whole"):
        shutil.copytree(root / "small", tmp_path / name)
    _write_report(tmp_path / "whole")
    (tmp_path / "linked" / "report").mkdir()
    (tmp_path / "linked" / "report" / "index.html").symlink_to(tmp_path / "whole" / "report" / "index.html")
    (tmp_path / "through" / "report").symlink_to(tmp_path / "whole" / "report")
    with served(tmp_path) as view:
        assert view.get("/report/whole/index.html").status == 200
        for path in (
            *("linked/index.html", "through/index.html", "through/tables/claims.csv", "whole/notes.txt", "whole/study.json"),
            *("whole/tables/../notes.txt", "whole/tables/%2e%2e/notes.txt", "whole/tables/..%2f..%2fstudy.json", "whole"),
            *("whole/report/index.html", "whole/tables/none.csv", "none/index.html", "index.html", "", "whole/index.html%00"),
            *("..%2fwhole/index.html", "%2fetc/index.html", "whole/figures/.csv", "whole/figures/a.html", "whole//index.html"),
        ):
            answer = view.get(f"/report/{path}")
            assert answer.status == 404 and "secret" not in answer.text, path


def test_two_runs_are_compared_and_what_does_not_compare_is_said(view: Served) -> None:
    assert "two runs are compared, and 1 were chosen" in _text(view, "/compare?run=first", 400)
    refused = view.get("/compare?run=first&run=second")
    assert refused.status == 409 and "max_steps is 6 in the first and 7 in the second" in Read(refused.text).text
    (anyway,) = [
        about["href"] for tag, about in Read(refused.text).elements if tag == "a" and "anyway" in str(about.get("href"))
    ]
    text = _text(view, str(anyway))
    assert "Not the same elicitation: max_steps is 6" in text and "On the 4 tasks that both have" in text
    assert "Success, CoT" in text and "CoT − prompt" in text
    same = _text(view, "/compare?run=first&run=first")
    assert "+0.00 [" in same and "Tasks that one won alone" not in same


def test_a_comparison_is_that_of_the_command(view: Served, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["compare", str(root / "first"), str(root / "second"), "--anyway", "--json"]) == 0
    env = json.loads(capsys.readouterr().out)["envs"]["alfworld-gen"]
    text = _text(view, "/compare?run=first&run=second&anyway=1")
    cot = env["modes"]["cot"]["success"]
    for side in ("first", "second"):
        assert f"{cot[side]['mean']:.2f} [{cot[side]['low']:.2f}, {cot[side]['high']:.2f}]" in text
    assert f"{env['gap']['difference']['mean']:+.2f}" in text


def test_several_samples_of_a_task_have_their_own_intervals_and_tests(tmp_path: Path) -> None:
    from cotbench.view.numbers import comparison_table, run_table

    config = cotbench.RunConfig(agent="random", env="alfworld-gen", mode="cot", episodes=2, max_steps=2)
    once = cotbench.run(config, out=tmp_path / "once")
    twice = cotbench.run(config.model_copy(update={"samples": 2}), out=tmp_path / "twice")
    assert "Wilson" in run_table(once.summary).caption
    assert "Wilson" not in (caption := run_table(twice.summary).caption) and "the 2 samples of each together" in caption
    for first, second, test in ((once, once, "McNemar"), (twice, once, "exchange"), (twice, twice, "exchange")):
        compared = cotbench.compare(first, second, anyway=True)
        caption = comparison_table(compared.envs["alfworld-gen"], compared).caption
        assert test in caption and ("McNemar" in caption) == (test == "McNemar")


def test_nothing_a_model_wrote_is_markup(tmp_path: Path, root: Path) -> None:
    name = "<img src=x onerror=alert(1)> & \"'"
    folder = tmp_path / name
    folder.mkdir()
    manifest = json.loads((root / "first" / MANIFEST).read_bytes())
    manifest["config"]["agent"] = HOSTILE[0]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    a, b, c, *_ = HOSTILE
    with Journal(folder) as journal:
        for task in manifest["task_list"][:2]:
            journal.append(episode(task, "cot", steps=[step(a, b, a, f"{a}{b}{c}", invalid_action=b, observation=a)], goal=c))
            journal.append(episode(task, "prompt", error=a, error_kind="agent bug", traceback=f"{a}\n{c}"))
    with served(tmp_path) as view:
        at = f"folder={quote(name)}"
        for path in (
            "/",
            f"/run?{at}",
            f"/live?{at}",
            f"/compare?run={quote(name)}&run={quote(name)}",
            f"/run?folder={quote(a)}",
        ):
            page = Read(view.get(path).text)
            allowed = {"/static/"}
            for tag, about in page.elements:
                assert not any(key.startswith("on") or key == "style" for key in about), (path, tag, about)
                assert tag not in ("img", "iframe", "object", "base"), (path, tag)
                if tag == "script":
                    assert about.get("type") == "application/json" or str(about["src"]).startswith(tuple(allowed)), about
        assert name in _text(view, "/")
        assert HOSTILE[0] in " ".join(Read(view.get("/").text).text.split())


def test_every_answer_has_the_headers_and_no_other_host_is_answered(view: Served) -> None:
    for path, status in (("/", 200), ("/run?folder=first", 200), ("/nothing", 404), ("/run?folder=nothing", 404)):
        answer = view.get(path)
        assert answer.status == status
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["X-Frame-Options"] == "DENY"
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert view.get("/", Host=host).status == 421, host
    for host in (f"localhost:{view.port}", "127.0.0.1", "[::1]:1", "LOCALHOST"):
        assert view.get("/", Host=host).status == 200, host
    assert view.get("/", "POST", Origin="http://evil.example").status == 403
    assert view.get("/", "POST").status == 405 and view.get("/", "HEAD").text == ""


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, root: Path) -> None:
    (tmp_path / "secret").mkdir()
    for name in (MANIFEST, EPISODES):
        (tmp_path / "secret" / name).write_bytes((root / "first" / name).read_bytes())
    inside = tmp_path / "inside"
    (inside / "linked").mkdir(parents=True)
    (inside / "linked" / MANIFEST).write_bytes((root / "first" / MANIFEST).read_bytes())
    (inside / "linked" / EPISODES).symlink_to(tmp_path / "secret" / EPISODES)
    (inside / "away").symlink_to(tmp_path / "secret")
    with served(inside) as view:
        text = _text(view, "/")
        assert "episodes.jsonl is a link that leads out of" in text and "0 runs" not in text
        places = (
            "../secret",
            "away",
            "/etc",
            str(tmp_path / "secret"),
            "linked/../../secret",
            "..%2fsecret",
            "linked",
            "\0",
            "",
        )
        for place in places:
            for page in ("run", "live", "study"):
                answer = view.get(f"/{page}?folder={quote(place)}")
                assert answer.status == 404 and "alfworld/gen" not in answer.text, (page, place)
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/view.css", "/secret/manifest.json"):
            assert view.get(path).status == 404, path


def test_damaged_and_foreign_folders_are_named_and_hide_nothing(tmp_path: Path, root: Path) -> None:
    files = {
        "empty/manifest.json": b"",
        "binary/manifest.json": bytes(range(256)),
        "foreign/manifest.json": b'{"name": "an app"}',
        "deep/manifest.json": b"[" * 100_000,
        "alone/episodes.jsonl": b"{}\n",
        "study/study.json": b"{}",
        "suite/suite.json": b"nonsense",
        "unknown/manifest.json": (root / "first" / MANIFEST).read_bytes().replace(b'"alfworld-gen"', b'"no-such-env"'),
        "cut/manifest.json": (root / "first" / MANIFEST).read_bytes(),
        "cut/episodes.jsonl": (root / "first" / EPISODES).read_bytes()[:-100],
        "line/manifest.json": (root / "first" / MANIFEST).read_bytes(),
        "line/episodes.jsonl": b"garbage\n",
        "summary/manifest.json": (root / "first" / MANIFEST).read_bytes(),
        "summary/summary.json": b"{}",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "foreign" / "pipe")
    with served(tmp_path) as view:
        text = _text(view, "/")
        for name in ("empty", "binary", "foreign", "deep", "alone", "study", "line", "summary"):
            assert f"{name}: " in text, name
        assert "cut slips alfworld-gen paper/id, seed 0 7/8" in text
        for name in ("empty", "binary", "foreign", "deep", "alone", "line", "summary"):
            assert view.get(f"/run?folder={name}").status in (400, 404), name
        assert view.get("/run?folder=cut").status == 200 and view.get("/study?folder=study").status == 404
        assert view.get("/run?folder=unknown").status in (200, 400, 404)
    assert not list(tmp_path.rglob(".lock")), "looking has written"


def test_a_run_is_live(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "r"
    with served(tmp_path) as view:
        assert "There is no run in this folder yet" in _text(view, "/")
        folder.mkdir()
        (folder / MANIFEST).write_bytes((root / "first" / MANIFEST).read_bytes())
        lines = (root / "first" / EPISODES).read_bytes().splitlines(keepends=True)
        view.now()
        with file_lock(folder / LOCK):
            assert "running 0 of 8 episodes" in _text(view, "/run?folder=r")
            first = view.get("/live?folder=r")
            assert view.get("/live?folder=r", If_None_Match=first.headers["ETag"]).status == 304
            (folder / EPISODES).write_bytes(b"".join(lines[:3]) + lines[3][:40])
            second = view.get("/live?folder=r", If_None_Match=first.headers["ETag"])
            assert second.status == 200 and 'data-episodes="3"' in second.text and "3 of 8 episodes" in second.text
            assert "<html" not in second.text and "episode-data" not in second.text
            view.now()
            assert "3/8" in _text(view, "/")
        view.now()
        assert "interrupted 3 of 8 episodes" in _text(view, "/run?folder=r")


def test_a_poll_reads_nothing_of_what_has_not_changed(view: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of finished runs costs a look at their files, not their content."""
    view.now()
    view.get("/")
    monkeypatch.setattr(Journal, "read_on", None)
    monkeypatch.setattr("cotbench.runs.run_status.read_manifest", None)
    view.now()
    assert view.get("/").status == 200


def test_the_command_says_where_and_ends_by_ctrl_c(root: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "cotbench", "view", str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith(f"{root.resolve()} on http://127.0.0.1:") and line.endswith("(Ctrl-C ends it)\n")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert "Traceback" not in err, err


def test_the_command_refuses_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    assert run_cli(["view", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run_cli(["view", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
        assert "choose another --port" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_cli(["view", str(tmp_path)]) == 1
    assert f"cotbench view needs the extra 'view': {install_command('view')}" in capsys.readouterr().err
