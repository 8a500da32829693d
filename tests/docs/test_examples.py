"""The examples run: each script as it is started by hand, the notebook cell by cell."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

from tests.docs.blocks import EXAMPLES, pages, read_blocks
from tests.docs.session import Session

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "reading_a_run.ipynb"


def _cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_every_script_is_run_by_a_page() -> None:
    run = {
        name
        for page in pages()
        for block in read_blocks(page)
        if block.is_run and block.language == "bash"
        for words in block.commands
        for name in words[1:2]
        if words[0] == "python"
    }
    assert set(EXAMPLES) <= run


def test_the_notebook_holds_no_output() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_the_notebook_runs(tmp_path: Path) -> None:
    """Cell by cell in one process, the last expression of each shown; a kernel does no more."""
    shutil.copy(NOTEBOOK.parent / "searcher.py", tmp_path)
    body = ["import json", "shown = []"]
    for source in _cells("code"):
        tree = ast.parse(source)
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.parse(f"shown.append({ast.unparse(last.value)})").body[0]
        body.append(ast.unparse(tree))
    body.append("mean, p, prompt_only, cot_only = shown[1]")
    body.append("print(json.dumps([len(shown), mean, cot_only, prompt_only, float(shown[-1]['mean'].max())]))")
    with Session(tmp_path) as session:
        printed = session.run_code("\n".join(body), tmp_path).out
    count, gap, cot_only, prompt_only, most = json.loads(printed.splitlines()[-1])
    assert count == 5 and gap > 0 and cot_only > prompt_only and most > 0.5
