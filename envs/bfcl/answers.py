"""Single-turn tasks: checking an answer, and an answer that passes. Invariant: the verdict is upstream's: `ast_checker` for
calls, whether anything was called for relevance.

Source: bfcl-eval `eval_runner.py`: `_evaluate_single_ast_entry`, `_evaluate_single_relevance_entry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cotbench.envs.bfcl import data
from cotbench.envs.bfcl.calls import NO_CALL, Call, UnreadableError, read, spell
from cotbench.envs.bfcl.source import read_source
from cotbench.envs.bfcl.upstream import Upstream

_OUTER = {"ArrayList": "new ArrayList<>(Arrays.asList({}))", "Array": "new Object[]{{{}}}", "array": "[{}]"}


def check_answer(task: str, text: str) -> tuple[bool, str]:
    """Return whether an answer is right by upstream's verdict, and if not, why.

    Args:
        task: id of a single-turn task.
        text: the answer as the model wrote it.
    """
    category = data.category_of(task)
    language = data.language_of(category)
    try:
        calls = read(text).calls if language == "python" else read_source(text)
    except UnreadableError as error:
        return ("irrelevance" in category), f"the answer cannot be read as calls: {error}"
    if "relevance" in category:
        # `[]` calls nothing; upstream: is_empty_output.
        return bool(calls) != ("irrelevance" in category), "a function was called" if calls else "nothing was called"
    try:
        return Upstream().check_single_turn(data.functions(task), calls, data.possible_answers(task), language, category)
    except Exception as error:  # Upstream's checker fails on values of unexpected form.
        return False, f"the checker cannot compare this answer ({type(error).__name__}: {error})"


def expert_answer(task: str) -> str:
    """Return an answer made of the listed possible values; for a task on which nothing is to be called, `[]`.

    Args:
        task: id of a single-turn task.
    """
    category = data.category_of(task)
    if "irrelevance" in category:
        return NO_CALL
    if "relevance" in category:
        return spell([{data.functions(task)[0]["name"]: {}}])
    described = {function["name"]: function["parameters"]["properties"] for function in data.functions(task)}
    language = data.language_of(category)
    required = {function["name"]: function["parameters"].get("required", ()) for function in data.functions(task)}
    return spell([_filled(answer, described, required, language) for answer in data.possible_answers(task)])


def _filled(
    answer: Mapping[str, Mapping[str, Sequence[Any]]],
    described: Mapping[str, Any],
    required: Mapping[str, Sequence[str]],
    language: str,
) -> Call:
    """Return a call with the first listed value of every argument that must be given."""
    (name, possible), chosen = next(iter(answer.items())), {}
    for argument, values in possible.items():
        if "" in values and argument not in required.get(name, ()):
            continue  # Listed as one that may be left away.
        value = next((value for value in values if value != ""), "")
        schema = described.get(name, {}).get(argument, {})
        chosen[argument] = _plain(value) if language == "python" else _in_source(value, schema, language)
    return {name: chosen}


def _plain(value: Any) -> Any:
    """Return a listed value without its alternatives: inside a dictionary every value is again a list of possible ones."""
    if isinstance(value, dict):
        inner = {key: next((one for one in values if one != ""), None) for key, values in value.items()}
        return {key: inner[key] for key, values in value.items() if "" not in values or inner[key] is not None}
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return value


def _in_source(value: Any, schema: Mapping[str, Any], language: str) -> str:
    """Return a listed value as the text of a Java or JavaScript value of its described type."""
    kind, inner = schema.get("type", "any"), schema.get("items", {})
    if isinstance(value, list) and kind in _OUTER:
        # Upstream's converter takes the quotes from the elements of a list, but keeps those of an array.
        quoted = kind == "array" or (kind == "ArrayList" and inner.get("type") in ("String", "char"))
        inside = [_quoted(element) if quoted else _in_source(element, inner, language) for element in value]
        return _OUTER[kind].format(", ".join(inside))
    if isinstance(value, list):
        return "[" + ", ".join(_quoted(element) for element in value) + "]"
    if isinstance(value, dict) and language == "java":
        puts = "".join(f' put("{key}", {_quoted(_plain({key: values})[key])});' for key, values in value.items())
        return f"new HashMap<String, Object>() {{{{{puts} }}}}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{key}': {_quoted(inner)}" for key, inner in _plain(value).items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return f"{value}{_SUFFIXES.get((language, kind), '')}"


_SUFFIXES = {("java", "float"): "f", ("java", "long"): "L", ("javascript", "Bigint"): "n"}


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_quoted(element) for element in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{key}': {_quoted(inner)}" for key, inner in _plain(value).items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)
