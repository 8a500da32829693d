"""The simulated services of one scenario, and calling them. Invariant: a call can reach the services' public methods with
literal arguments and nothing else; its result is, text for text, what upstream's executor returns.

Source: bfcl-eval `multi_turn_utils.py`: `execute_multi_turn_func_call`, `_process_method_calls`.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from cotbench.envs.bfcl.upstream import STATELESS, Upstream

FORBIDDEN = frozenset({"kill", "exit", "quit", "remove", "unlink", "popen", "Popen", "run"})
"""Names that upstream refuses to call."""

_CALLED = re.compile(r"\b([a-zA-Z_]\w*)\s*(?=\()")
_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: lambda value: -value, ast.UAdd: lambda value: +value}


_FAILED = "Error during execution: "


def failed(result: str) -> bool:
    """Tell whether the result of a call is that it could not be executed; services report what they refuse in other words."""
    return result.startswith(_FAILED)


class RefusedError(Exception):
    """Raised for a call that contains more than declared functions and literals."""


def _public_methods(service_class: type[Any]) -> list[str]:
    """Return the names that upstream takes for an instance's bound methods: the functions and class methods of its class."""
    members = {name: member for base in reversed(service_class.__mro__) for name, member in vars(base).items()}
    return sorted(
        name for name, member in members.items() if isinstance(member, FunctionType | classmethod) and not name.startswith("_")
    )


class Services:
    """Fresh instances of the services that a scenario involves.

    Args:
        entry: upstream's entry: `id`, `initial_config`, `involved_classes`.
        owner: stands in the instances' names, which upstream writes into texts that look like calls.
        upstream: the modules of the services. Default values and module variables are shared by all services made of it.
    """

    def __init__(self, entry: Mapping[str, Any], owner: str, upstream: Upstream) -> None:
        long_context = "long_context" in entry["id"].rsplit("_", 1)[0]
        self.instances: dict[str, Any] = {}
        self._methods: dict[str, str] = {}
        self._named: dict[str, Any] = {}
        for name in entry["involved_classes"]:
            service_class = upstream.service(name)
            instance = service_class()
            if name not in STATELESS:
                instance._load_scenario(copy.deepcopy(entry["initial_config"].get(name, {})), long_context=long_context)
            spoken = re.sub(r"[-./:]", "_", f"{owner}_{entry['id']}_{name}_instance")
            self.instances[name] = self._named[spoken] = instance
            self._methods |= dict.fromkeys(_public_methods(service_class), spoken)

    def call(self, text: str) -> str:
        """Execute one call as the decoder wrote it, and return its result; errors are results, in upstream's words.

        Args:
            text: a call as `CallAnswer.texts` writes it.

        Raises:
            MemoryError: the call needs more than this process may have; the services may be in any state.
        """
        try:
            prefixed = _CALLED.sub(self._with_instance, text)
            function = prefixed.split("(")[0]
            if "." in function:
                function = function.split(".")[1]
            if function in FORBIDDEN:
                raise RefusedError(f"Function call {function} is not allowed.")
            return _written(self._value(_parsed(prefixed)))
        except MemoryError:
            raise
        except Exception as error:
            return f"{_FAILED}{error}"

    def _with_instance(self, match: re.Match[str]) -> str:
        name = match[1]
        return f"{self._methods[name]}.{name}" if name in self._methods else name

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Call():
                return self._called(node)
            case ast.List():
                return [self._value(element) for element in node.elts]
            case ast.Tuple():
                return tuple(self._value(element) for element in node.elts)
            case ast.Dict() if None not in node.keys:
                pairs = zip(node.keys, node.values, strict=True)
                return {self._value(key): self._value(value) for key, value in pairs if key is not None}
            case ast.UnaryOp(operand=ast.Constant()) if type(node.op) in _SIGNS:
                return _SIGNS[type(node.op)](self._value(node.operand))
            case ast.BinOp(left=left, right=ast.Constant(value=complex() as imaginary)) if isinstance(
                node.op, ast.Add | ast.Sub
            ):
                real = self._value(left)
                return real + imaginary if isinstance(node.op, ast.Add) else real - imaginary
            case ast.Name() if node.id not in self._named:
                raise NameError(f"name '{node.id}' is not defined")
        raise RefusedError(f"{type(node).__name__} is not allowed in a call")

    def _called(self, node: ast.Call) -> Any:
        function = node.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id in self._named
            and self._methods.get(function.attr) == function.value.id
        ):
            root: ast.expr = function
            while isinstance(root, ast.Attribute):
                root = root.value
            self._value(root)  # An unknown name is the error, as in Python.
            raise RefusedError("only the listed functions can be called")
        method = getattr(self._named[function.value.id], function.attr)
        positional = [self._value(argument) for argument in node.args]
        if any(keyword.arg is None for keyword in node.keywords):
            raise RefusedError("unpacking is not allowed in a call")
        return method(*positional, **{str(keyword.arg): self._value(keyword.value) for keyword in node.keywords})


def _parsed(text: str) -> ast.expr:
    text = text.lstrip(" \t")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # For the errors that parsing alone does not find; it is not run.
            compile(text, "<string>", "eval", dont_inherit=True)
            return ast.parse(text, "<string>", mode="eval").body
        except MemoryError as error:
            raise RefusedError(str(error)) from error  # So says the parser of what is nested too deeply.


def _written(result: Any) -> str:
    """Return a result as upstream shows and compares it."""
    if type(result) is str:
        return result
    if type(result) is dict:
        try:
            return json.dumps(result)
        except MemoryError:
            raise
        except Exception:
            return str(result)
    return str(result)


def same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first public attribute in which two sets of instances differ, or None; upstream: `state_checker`.

    Args:
        one: service -> its instance.
        other: the same; its attributes are compared.
    """
    for name, truth in other.items():
        for attribute, value in vars(truth).items():
            if not attribute.startswith("_") and getattr(one[name], attribute) != value:
                return f"{name}.{attribute}"
    return None


def missing_results(expected: Sequence[str], produced: Sequence[str]) -> list[str]:
    """Return the expected results that were not produced, each as often as it is missing; upstream: `response_checker`.

    Args:
        expected: results of the ground truth's calls.
        produced: results of the model's calls, in any order.
    """
    left = list(produced)
    missing = []
    for result in expected:
        if result in left:
            left.remove(result)
        else:
            missing.append(result)
    return missing
