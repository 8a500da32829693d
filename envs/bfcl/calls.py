"""Parsing of function calls in a model's text. Invariant: nothing is run; what upstream's decoder reads is read to the same
values, what it cannot read is unreadable here too, and every text costs time linear in its length. Every text has an answer or
an `UnreadableError`, and a canonical form: no other exception comes out of here.

Source: bfcl-eval `model_handler/utils.py`: `default_decode_ast_prompting`, `ast_parse`, `resolve_ast_call`,
`resolve_ast_by_type`, `parse_nested_value`, `decoded_output_to_execution_list`, `convert_to_function_call`. Where upstream
would run the text of an arithmetic expression, a bounded calculation of literals takes its place.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cotbench.envs.reading import ActionParts

MAX_TEXT = 100_000
"""Characters; a longer answer is unreadable."""

_MAX_BITS = 16_000
"""Size of a calculated number; upstream cannot print one of more than 4,300 digits."""

_MAX_CALCULATED = 1_000_000
"""Characters and elements of all texts and lists that are calculated in one answer, like `'x' * 9999`."""

Call = dict[str, dict[Any, Any]]
"""One call, as upstream's checkers take it: `{name: {argument: value}}`. A key None holds the operand of `**`."""

NO_CALL = "[]"
"""The answer that calls nothing."""


class UnreadableError(ValueError):
    """Raised for a text that is no list of calls."""


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """Calls that were read.

    Attributes:
        calls: one dictionary a call, in order.
        as_json: whether they were written in JSON (the form of tool calls); else as Python calls.
    """

    calls: list[Call]
    as_json: bool

    def texts(self) -> list[str]:
        """Return each call as upstream executes it: `f(a=1, b='x')`.

        Raises:
            UnreadableError: upstream's decoder fails on such a value.
        """
        write = repr if self.as_json else _nested
        with unreadable_otherwise("a value that cannot be passed"):
            return [
                f"{name}({', '.join(f'{key}={write(value)}' for key, value in arguments.items())})"
                for call in self.calls
                for name, arguments in call.items()
            ]


@contextmanager
def unreadable_otherwise(what: str = "") -> Iterator[None]:
    """Raise an `UnreadableError` instead of whatever else is raised inside: a text is data, and at fault itself.

    Args:
        what: what is wrong with the text, for the message; the exception's own message where it is empty.
    """
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UnreadableError(f"{what} ({reason})" if what else reason) from error


def read(text: str) -> CallAnswer:
    """Return the calls that a text holds; an empty list for `[]` and for an empty text.

    Raises:
        UnreadableError: it holds something else.
    """
    if len(text) > MAX_TEXT:
        raise UnreadableError(f"longer than {MAX_TEXT:,} characters")
    with unreadable_otherwise():
        in_json = _read_json(text.strip("`\n "))
        if in_json is not None:
            return CallAnswer(in_json, True)
        values = _Values()
        return CallAnswer([values.call(node) for node in call_nodes(text)], False)


def canonical(text: str) -> str:
    """Return one spelling for all answers with the same calls: `[f(a=1, b='x')]`.

    Words without a call become `[]`: they end the turn, whatever they are. A call that cannot be read stays as it is, so that
    the record shows it. Tool calls in JSON keep that form only where the Python form would be executed in another way.

    Args:
        text: a model's response.
    """
    try:
        answer = read(text)
    except UnreadableError:
        plain = text[:MAX_TEXT].strip()
        return plain if _ATTEMPT.search(plain) else NO_CALL
    if not answer.calls:
        return NO_CALL
    try:
        with unreadable_otherwise():
            spelled = _spelled(text, answer)
            return spelled if len(spelled) <= MAX_TEXT else text.strip()
    except UnreadableError:
        return text.strip()  # A number of too many digits, or nested too deeply: it could be read, but not be spelled again.


def _spelled(text: str, answer: CallAnswer) -> str:
    if not answer.as_json:
        return _respelled(text)
    spelled = spell(answer.calls)
    if _same(spelled, answer):
        return spelled
    tool_calls = [{"name": name, "arguments": inner} for call in answer.calls for name, inner in call.items()]
    return json.dumps(tool_calls, ensure_ascii=False)


_ATTEMPT = re.compile(r"^[\[{]|\w\(")


def action_parts(action: str) -> ActionParts:
    """Return the calls of a canonical action with a place for each plain value, and the values; texts without their quotes.

    An action that holds no calls that can be read is a form of its own.

    Args:
        action: a canonical action.
    """
    values: list[str] = []

    def place(value: Any) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(place, value))}]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {place(inner)}" for key, inner in value.items()) + "}"
        values.append(str(value))
        return "'{}'" if isinstance(value, str) else "{}"

    try:
        with unreadable_otherwise():
            calls = [(name, arguments) for call in read(action).calls for name, arguments in call.items()]
            spelled = (f"{name}({', '.join(f'{key}={place(value)}' for key, value in own.items())})" for name, own in calls)
            return ActionParts(f"[{', '.join(spelled)}]", tuple(values))
    except UnreadableError:
        return ActionParts(action)


def spell(calls: list[Call]) -> str:
    """Return calls in Python syntax."""
    return "[" + ", ".join(_spell_call(name, arguments) for call in calls for name, arguments in call.items()) + "]"


def _spell_call(name: str, arguments: Mapping[Any, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _respelled(text: str) -> str:
    """Return the calls of a readable text in Python's own spelling, without their positional arguments."""
    calls = [ast.Call(node.func, [], node.keywords) for node in call_nodes(text)]
    return "[" + ", ".join(" ".join(ast.unparse(call).split("\n")) for call in calls) + "]"


def _same(spelled: str, answer: CallAnswer) -> bool:
    """Tell whether a spelling is read back to the same calls, executed in the same way."""
    try:
        again = read(spelled)
        if repr(again.calls) != repr(answer.calls):
            return False
        return not answer.as_json or [_dump(text) for text in again.texts()] == [_dump(text) for text in answer.texts()]
    except (UnreadableError, RecursionError, ValueError):
        return False


def _dump(text: str) -> str:
    return ast.dump(_parse(text))


@lru_cache(maxsize=16)  # A response is read several times in a row; its tree is never changed.
def _parse(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, "<answer>", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        raise UnreadableError(str(error) or type(error).__name__) from error


def call_nodes(text: str) -> list[ast.Call]:
    """Return the calls of a text in Python syntax, with or without the brackets around them; upstream: `ast_parse`.

    Raises:
        UnreadableError: it is something else.
    """
    text = text.strip("`\n ")
    text = text if text.startswith("[") else "[" + text
    text = text if text.endswith("]") else text + "]"
    body = _parse(text.strip().strip("'"))
    if isinstance(body, ast.Call):
        return [body]
    if not isinstance(body, ast.List | ast.Tuple | ast.Set):
        raise UnreadableError(f"not a list of calls but a {type(body).__name__}")
    calls = [element for element in body.elts if isinstance(element, ast.Call)]
    if len(calls) < len(body.elts):
        raise UnreadableError("not every element is a call")
    return calls


_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}


class _Values:
    """The values of the nodes of one answer; what is calculated in it is bounded in sum."""

    def __init__(self) -> None:
        self._room = _MAX_CALCULATED

    def call(self, node: ast.Call) -> Call:
        """Return a call without its positional arguments, which upstream drops too."""
        parts: list[str] = []
        function: ast.expr = node.func
        while isinstance(function, ast.Attribute):
            parts.append(function.attr)
            function = function.value
        if isinstance(function, ast.Name):
            parts.append(function.id)
        return {".".join(reversed(parts)): {keyword.arg: self.value(keyword.value) for keyword in node.keywords}}

    def value(self, node: ast.expr | None) -> Any:
        match node:
            case ast.Constant():
                return "..." if node.value is Ellipsis else node.value
            case ast.UnaryOp(operand=ast.Constant(value=value)):
                return -value  # type: ignore[operator]  # Whatever the operator: upstream reads +5 as -5.
            case ast.List():
                return [self.value(element) for element in node.elts]
            case ast.Tuple():
                return tuple(self.value(element) for element in node.elts)
            case ast.Dict():
                return {self.value(key): self.value(value) for key, value in zip(node.keys, node.values, strict=True)}
            case ast.BinOp():
                return self.calculated(node)
            case ast.Name():
                return node.id
            case ast.Call():
                return self.call(node) if node.keywords else ast.unparse(node)
            case ast.Subscript():
                return f"{ast.unparse(node.value)}[{ast.unparse(node.slice)}]"
        raise UnreadableError(f"a value of the form {type(node).__name__}")

    def calculated(self, node: ast.expr) -> Any:
        """Return the value of an arithmetic expression of literals, bounded in size."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp():
                return _UNARY[type(node.op)](self.calculated(node.operand))
            case ast.List():
                return [self.calculated(element) for element in node.elts]
            case ast.Tuple():
                return tuple(self.calculated(element) for element in node.elts)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                left, right = self.calculated(node.left), self.calculated(node.right)
                if _size(node.op, left, right) > _MAX_BITS:
                    raise UnreadableError("a calculation with too large a result")
                result = _OPERATORS[type(node.op)](left, right)
                self._room -= 0 if isinstance(result, int | float | complex) else _bits(result)
                if self._room < 0:
                    raise UnreadableError("calculations with too large results")
                return result
        raise UnreadableError(f"a calculation with a {type(node).__name__}")


def _size(operation: ast.operator, left: Any, right: Any) -> int:
    """Return an upper bound of a result's size in bits (or elements, or characters); above the limit where none is known."""
    sizes = [_bits(left), _bits(right)]
    if isinstance(operation, ast.Pow):
        return sizes[0] * max(1, abs(right)) if isinstance(right, int) else sum(sizes)
    if isinstance(operation, ast.LShift):
        return sizes[0] + abs(right) if isinstance(right, int) else _MAX_BITS + 1
    if isinstance(operation, ast.Mult) and not all(isinstance(side, int | float | complex) for side in (left, right)):
        count = next((side for side in (left, right) if isinstance(side, int)), 1)
        return max(sizes) * max(1, abs(count)) if min(sizes) <= 64 else _MAX_BITS + 1
    if isinstance(operation, ast.Mod) and isinstance(left, str | bytes):
        return _MAX_BITS + 1  # A format can ask for a width of billions.
    return sum(sizes)


def _bits(value: Any) -> int:
    if isinstance(value, int):
        return value.bit_length()
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return 1 + sum(_bits(element) for element in value)
    return 64


def _nested(value: Any) -> str:
    """Return a value as upstream writes it down for execution: a dictionary of dictionaries becomes a call."""
    if not isinstance(value, dict):
        return repr(value)
    if all(isinstance(inner, dict) for inner in value.values()):
        name = next(iter(value), None)
        if name is None:
            raise IndexError("an empty dictionary")
        return f"{name}({', '.join(f'{key}={_nested(inner)}' for key, inner in value[name].items())})"
    return "{" + ", ".join(f"'{key}': {_nested(inner)}" for key, inner in value.items()) + "}"


def _read_json(text: str) -> list[Call] | None:
    """Return the tool calls of a text, or None where it holds none.

    Read are a list or one of `{"name", "arguments"}`, bare or as OpenAI's `{"type": "function", "function": ...}`.
    """
    if not text.startswith(("[", "{")):
        return None
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None
    items = loaded if isinstance(loaded, list) else [loaded]
    calls = [_tool_call(item) for item in items]
    known = [call for call in calls if call is not None]
    return known if known and len(known) == len(calls) else None


def _tool_call(item: Any) -> Call | None:
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item = item["function"]
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    arguments = item.get("arguments", item.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    return {item["name"]: arguments} if isinstance(arguments, dict) else None
