"""The code as a graph of imports, read from its source. Invariant: every import is an edge, wherever it stands in a file, and
`from package import module` is an edge to the module.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "cotbench": ROOT / "cotbench",
    "cotbench.envs": ROOT / "envs",
    "cotbench.baselines": ROOT / "baselines",
    "cotbench.leaderboard": ROOT / "leaderboard",
}
Graph = Mapping[str, frozenset[str]]


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module, by the name under which it is imported."""
    found = {}
    for top, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([top, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax of a file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def _statements(node: ast.AST, *, in_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not in_functions:
            continue
        yield child
        yield from _statements(child, in_functions=in_functions)


def imports(path: Path, *, in_functions: bool = True, known: Iterable[str] | None = None) -> set[str]:
    """Return what a file imports, also for type checking alone.

    Args:
        path: of the file.
        in_functions: also what is imported when a function is called.
        known: names of modules, by which `from package import name` is told to be a module or something in the package.
    """
    names = set(modules() if known is None else known)
    found = set()
    for node in _statements(tree(path), in_functions=in_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}:{node.lineno}: a relative import"
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in names else node.module for full in inside.values()}
    return found


@cache
def graph(*, in_functions: bool) -> dict[str, frozenset[str]]:
    """Return for every module the modules of ours that it imports."""
    return {
        name: frozenset(imports(path, in_functions=in_functions) & modules().keys() - {name})
        for name, path in modules().items()
    }


def grouped(edges: Graph, group_of: Callable[[str], str]) -> dict[str, frozenset[str]]:
    """Return the graph of groups of modules: an edge for an import from one group to another."""
    found: dict[str, set[str]] = {}
    for name, targets in edges.items():
        found.setdefault(group_of(name), set()).update(map(group_of, targets))
    return {group: frozenset(targets - {group}) for group, targets in found.items()}


def circles(edges: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Kosaraju), each sorted."""
    order: list[str] = []
    seen: set[str] = set()

    def finish(node: str) -> None:
        seen.add(node)
        for target in edges.get(node, ()):
            if target not in seen:
                finish(target)
        order.append(node)

    for node in edges:
        if node not in seen:
            finish(node)
    back: dict[str, set[str]] = {}
    for node, targets in edges.items():
        for target in targets:
            back.setdefault(target, set()).add(node)
    found, placed = [], set()
    for root in reversed(order):
        component, waiting = [], [root]
        while waiting:
            node = waiting.pop()
            if node not in placed:
                placed.add(node)
                component.append(node)
                waiting += back.get(node, ())
        if len(component) > 1:
            found.append(sorted(component))
    return found
