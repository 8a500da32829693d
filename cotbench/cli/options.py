"""Functions shared by the commands: configs from typed values, and the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import flag_of
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import RunConfig

_M = TypeVar("_M", bound=BaseModel)


def only_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were typed, which are not None."""
    return {name: value for name, value in options.items() if value is not None}


def new_config(given: Mapping[str, Any]) -> RunConfig:
    """Return a run's config from typed values, `env` among them; defaults are the environment's and the config's own.

    Raises:
        UsageError: a value that does not fit.
    """
    values = given.get("elicitation", {})
    return model_of(RunConfig, {**given, "elicitation": elicitation_of(given["env"], values)})


def elicitation_of(env: str, values: Mapping[str, Any]) -> Elicitation:
    """Return the elicitation from typed values, with an environment's defaults.

    Raises:
        UsageError: a value that does not fit, or there is no such environment.
    """
    try:
        return Elicitation.for_env(env, **values)
    except ValidationError as error:
        raise bad_value(error, Elicitation) from error


def model_of(model: type[_M], values: Mapping[str, Any]) -> _M:
    """Return a config from typed values.

    Args:
        model: the class of the config.
        values: by its fields.

    Raises:
        UsageError: a value that does not fit.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise bad_value(error, model) from error


def check_choices(model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Raise an error for a value that is not among a field's choices, with near matches.

    Raises:
        UnknownNameError: names the flag.
    """
    for name, value in values.items():
        choices = get_args(model.model_fields[name].annotation)
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            raise UnknownNameError(flag_of(model, name).lstrip("-"), str(value), choices)


def bad_value(error: ValidationError, model: type[BaseModel] | None = None) -> UsageError:
    """Return the error for a value that does not fit: the option, the value, why.

    Args:
        error: of pydantic.
        model: the model whose fields' options are named.
    """
    first = error.errors()[0]
    field = str(first["loc"][-1] if first["loc"] else "")
    flag = flag_of(model, field) if model is not None else "--" + field.replace("_", "-")
    return UsageError(f"{flag} {first['input']}: {first['msg']}")
