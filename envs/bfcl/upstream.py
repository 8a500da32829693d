"""The modules of the pinned bfcl-eval wheel that hold the simulated services and the checkers. Invariant: they come from the
file whose sha256 is written in `wheels`, see each other and nothing else of their package, and are in no `sys.modules`.

The package itself cannot be imported: it pulls in every vendor's client library and makes folders beside itself.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from cotbench.envs import wheels

_PACKAGE = "bfcl_eval"
_SERVICES = f"{_PACKAGE}.eval_checker.multi_turn_eval.func_source_code"

SERVICES: Mapping[str, str] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"""Class -> module, and document, of the simulated services; upstream: `executable_backend_config`."""

STATELESS = frozenset({"MathAPI"})


class _AnyModel(dict[str, Any]):
    """Replacement of upstream's table of models, from which the checker reads only that names keep their dots."""

    def __missing__(self, name: str) -> Any:
        return SimpleNamespace(underscore_to_dot=False)


class _Modules:
    """Modules of the wheel, each run once."""

    def __init__(self) -> None:
        config = ModuleType(f"{_PACKAGE}.constants.model_config")
        config.__dict__["MODEL_CONFIG_MAPPING"] = _AnyModel()
        self._loaded = {config.__name__: config}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """Return a module of the wheel, run at its first use."""
        if name not in self._loaded:
            member = name.replace(".", "/") + ".py"
            module = ModuleType(name)
            module.__dict__["__builtins__"] = self._builtins
            self._loaded[name] = module
            # The wheel's own source, of a checked sha256; never what a model wrote.
            exec(compile(wheels.read_bytes("bfcl", member), f"{_PACKAGE} wheel: {member}", "exec"), module.__dict__)  # noqa: S102
        return self._loaded[name]

    def _import(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        wanted: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if name.partition(".")[0] == _PACKAGE:
            return self.load(name)  # They always write `from bfcl_eval... import ...`.
        return __import__(name, variables, local, wanted, level)


@cache
def _modules() -> _Modules:
    return _Modules()


def service(name: str) -> type[Any]:
    """Return the class of a simulated service."""
    loaded: type[Any] = getattr(_modules().load(f"{_SERVICES}.{SERVICES[name]}"), name)
    return loaded


def check_single_turn(
    functions: list[dict[str, Any]], calls: list[dict[str, Any]], answers: list[dict[str, Any]], language: str, category: str
) -> tuple[bool, str]:
    """Return the verdict of upstream's `ast_checker`: whether calls fit the possible answers, and its reason where they do not.

    Args:
        functions: the described functions, in upstream's schema.
        calls: the calls of the answer.
        answers: the possible answers.
        language: "python", "java" or "javascript".
        category: the task's category.
    """
    languages = _modules().load(f"{_PACKAGE}.constants.enums").Language
    checker = _modules().load(f"{_PACKAGE}.eval_checker.ast_eval.ast_checker").ast_checker
    verdict = checker(functions, calls, answers, languages(language), category, "cotbench")
    return bool(verdict["valid"]), "" if verdict["valid"] else str(verdict["error"])
