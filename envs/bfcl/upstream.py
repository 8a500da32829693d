"""The modules of the pinned bfcl-eval wheel that hold the simulated services and the checkers. Invariant: they come from the
file whose sha256 is written in `wheels`, see each other and nothing else of their package, and are in no `sys.modules`; what
one `Upstream` has run shares nothing with what another has run, and has the same clock at any time.

The package itself cannot be imported: it pulls in every vendor's client library and makes folders beside itself. Its services
keep state in default values, module variables and class attributes, so their code is compiled once and run again for each
episode: that takes a tenth of a millisecond a module.
"""

from __future__ import annotations
import __future__

import builtins
import datetime
import decimal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Self

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


NOW = datetime.datetime(2024, 9, 1, 10, 30)
"""The date and time of the services, in any year in which they run: the one that upstream's trading service has for its own
present (`CURRENT_TIME`). The travel service would read the clock, and a verdict would depend on the day of the evaluation.
"""


class _FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        return cls.combine(NOW.date(), NOW.time(), tz)

    @classmethod
    def today(cls) -> Self:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Self:
        return cls.now()


class _FixedDate(datetime.date):
    @classmethod
    def today(cls) -> Self:
        return cls(NOW.year, NOW.month, NOW.day)


class Upstream:
    """The wheel's modules, each run at its first use, in the state in which a new process would have them.

    Making one also resets what the services change in the libraries that they share with this process.
    """

    def __init__(self) -> None:
        decimal.setcontext(decimal.Context())
        for restore in _library_state():
            restore()
        config = ModuleType(f"{_PACKAGE}.constants.model_config")
        config.__dict__["MODEL_CONFIG_MAPPING"] = _AnyModel()
        clock = ModuleType("datetime")
        clock.__dict__.update(vars(datetime), datetime=_FixedDatetime, date=_FixedDate)
        self._loaded = {config.__name__: config, clock.__name__: clock}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def service(self, name: str) -> type[Any]:
        """Return the class of a simulated service."""
        loaded: type[Any] = getattr(self._load(f"{_SERVICES}.{SERVICES[name]}"), name)
        return loaded

    def check_single_turn(
        self,
        functions: list[dict[str, Any]],
        calls: list[dict[str, Any]],
        answers: list[dict[str, Any]],
        language: str,
        category: str,
    ) -> tuple[bool, str]:
        """Return the verdict of upstream's `ast_checker`: whether calls fit the possible answers, and its reason if not.

        Args:
            functions: the described functions, in upstream's schema.
            calls: the calls of the answer.
            answers: the possible answers.
            language: "python", "java" or "javascript".
            category: the task's category.
        """
        languages = self._load(f"{_PACKAGE}.constants.enums").Language
        checker = self._load(f"{_PACKAGE}.eval_checker.ast_eval.ast_checker").ast_checker
        verdict = checker(functions, calls, answers, languages(language), category, "cotbench")
        return bool(verdict["valid"]), "" if verdict["valid"] else str(verdict["error"])

    def _load(self, name: str) -> ModuleType:
        if name not in self._loaded:
            module = ModuleType(name)
            module.__dict__["__builtins__"] = self._builtins
            self._loaded[name] = module
            # The wheel's own source, of a checked sha256; never what a model wrote.
            exec(_code(name), module.__dict__)  # noqa: S102
        return self._loaded[name]

    def _import(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        wanted: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if name in self._loaded or name.partition(".")[0] == _PACKAGE:
            return self._load(name)  # They always write `from bfcl_eval... import ...`.
        return __import__(name, variables, local, wanted, level)


@cache
def _code(name: str) -> CodeType:
    """Return the compiled code of a module of the wheel, the same whatever options this interpreter has."""
    member = name.replace(".", "/") + ".py"
    source = wheels.read_bytes("bfcl", member)
    # Annotations, which nobody reads, take most of the time of running it.
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(source, f"{_PACKAGE} wheel: {member}", "exec", flags, dont_inherit=True, optimize=0)
    return code


@cache
def _library_state() -> tuple[Callable[[], None], ...]:
    """Return what puts mpmath back into its present state: its precision, and the constants and logarithms that it stores."""
    import mpmath

    precision = mpmath.mp.prec
    restores: list[Callable[[], None]] = [lambda: setattr(mpmath.mp, "prec", precision)]
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == mpmath.__name__]
    seen: set[int] = set()
    for module in modules:
        for name, value in list(vars(module).items()):
            store = vars(value) if isinstance(value, FunctionType) else value
            if isinstance(store, dict) and not name.startswith("__") and id(store) not in seen:
                seen.add(id(store))
                restores.append(_restoring(store))
    return tuple(restores)


def _restoring(store: dict[Any, Any]) -> Callable[[], None]:
    before = dict(store)

    def restore() -> None:
        if store != before:
            store.clear()
            store.update(before)

    return restore
