"""Options read from config models: a derived command line is read back as the values that it was derived from."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from typer.main import get_command

from cotbench.baselines.data.traces_config import TracesConfig
from cotbench.baselines.recipes.sft import SFTConfig
from cotbench.cli.flags import Typed, with_options
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import Flag, flag_of, options_of, read_value, to_arguments
from cotbench.probes.config import ProbeConfig
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import RunConfig
from cotbench.runs.resources import Resources


class Inner(BaseModel):
    """A nested model."""

    height: float = Field(1.5, description="height in m")
    colour: Annotated[Literal["red", "green"], Flag(name="--inner-colour")] = Field("red", description="paint")


class Config(BaseModel):
    """A field of every kind."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name [of it]")
    count: int | None = Field(None, ge=1, le=9, description="count")
    rate: Annotated[float, Flag(names=("-r",), default="as is")] = Field(1e-5, description="rate")
    fast: bool = Field(False, description="fast")
    clean: bool = Field(True, description="clean")
    loud: bool | None = Field(None, description="loud")
    names: Annotated[tuple[str, ...], Flag(name="--one")] = Field((), description="names")
    numbers: Annotated[tuple[float, ...], Flag(joined=True)] = Field((0.5, 1.0), description="numbers")
    where: Path | None = Field(None, description="where")
    inner: Annotated[Inner, Flag(panel="Inside")] = Field(default_factory=Inner, description="inner")
    table: Annotated[dict[str, Any], Flag(table=Inner, hidden=True)] = Field(default_factory=dict)
    secret: Annotated[int, Flag(hidden=True)] = Field(3, description="in a file alone")
    free: dict[str, Any] = Field(default_factory=dict, description="in a file alone")


def parse(*models: type[BaseModel], without: tuple[str, ...] = ()) -> Callable[[list[str]], Any]:
    """Reads a command line with the options of models: what was typed, by model."""
    app = typer.Typer(add_completion=False)
    found: list[Typed] = []

    @app.command()
    @with_options(*models, without=without)
    def command(typed: Typed) -> int:
        """Take note."""
        found.append(typed)
        return 0

    def call(arguments: list[str]) -> Any:
        get_command(app)(arguments, standalone_mode=False)
        return found.pop()

    return call


def test_options_are_the_fields() -> None:
    options = {option.name: option for option in options_of(Config)}
    assert list(options) == [
        *("--name", "--count", "--rate", "--fast", "--clean", "--loud", "--one", "--numbers", "--where"),
        *("--height", "--inner-colour"),
    ]
    assert [name for name, option in options.items() if option.open] == ["--clean", "--loud"]
    assert options["--inner-colour"].path == ("inner", "colour")
    assert options["--inner-colour"].panel == "Inside"
    assert options["--inner-colour"].help == "paint: red or green"
    defaults = {name: option.default for name, option in options.items() if option.default}
    assert defaults == {
        **{"--rate": "as is", "--clean": "clean", "--numbers": "0.5,1", "--height": "1.5", "--inner-colour": "red"},
    }
    assert "--height" not in {option.name for option in options_of(Config, without=("height",))}
    assert (flag_of(Config, "names"), flag_of(Config, "secret")) == ("--one", "--secret")


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ([], {}),
        (["--count", "3", "-r", "1e-4"], {"count": 3, "rate": 1e-4}),
        (["--fast", "--no-clean", "--no-loud"], {"fast": True, "clean": False, "loud": False}),
        (["--one", "a", "--one", "b,c"], {"names": ("a", "b,c")}),
        (["--numbers", "1, 2.5"], {"numbers": (1.0, 2.5)}),
        (["--numbers", ""], {"numbers": ()}),
        (["--height=2", "--inner-colour", "green"], {"inner": {"height": 2.0, "colour": "green"}}),
        (["--where", "here"], {"where": Path("here")}),
    ],
)
def test_only_what_was_typed_is_given(typed: list[str], given: dict[str, Any]) -> None:
    assert parse(Config)(typed)[Config] == given


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--count", "0"], "--count 0: Input should be greater than or equal to 1"),
        (["--count", "two"], "--count two: Input should be a valid integer"),
        (["--rate", "inf"], "--rate inf: Input should be a finite number"),
        (["--numbers", "1,x"], "--numbers 1,x: Input should be a valid number"),
        (["--inner-colour", "gren"], "unknown inner-colour 'gren'; did you mean 'green'"),
        (["--loud", "--no-loud"], "--loud and --no-loud contradict"),
    ],
)
def test_a_value_that_does_not_fit_names_its_option(typed: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(Config)(typed)
    assert message in str(error.value)


def test_choices_are_read_as_names() -> None:
    option = next(one for one in options_of(Elicitation) if one.field == "style")
    assert read_value(option, "template") == "template"
    with pytest.raises(UnknownNameError):
        read_value(option, "prefil")


def test_what_no_command_line_says_is_refused() -> None:
    class Full(BaseModel):
        names: tuple[str, ...] = ("a",)
        joined: Annotated[tuple[str, ...], Flag(joined=True)] = ()

    with pytest.raises(ValueError, match="--names: no command line"):
        to_arguments(Full, {"names": ()})
    with pytest.raises(ValueError, match="--joined: a comma"):
        to_arguments(Full, {"joined": ("a,b",)})
    with pytest.raises(KeyError):
        to_arguments(Config, {"secret": 1})
    assert to_arguments(Full, {"joined": ()}) == ["--joined", ""]


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=("Cs",)), max_size=8)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_INNER = {"height": _FLOATS, "colour": st.sampled_from(["red", "green"])}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": _TEXTS,
    "count": st.integers(1, 9),
    "rate": _FLOATS,
    "fast": st.just(True),
    "clean": st.booleans(),
    "loud": st.booleans(),
    "names": st.lists(_TEXTS, min_size=1, max_size=3).map(tuple),
    "numbers": st.lists(_FLOATS, max_size=3).map(tuple),
    "where": st.text(string.ascii_letters + "-/.", min_size=1).map(Path),
    "inner": st.fixed_dictionaries({}, optional=_INNER).filter(bool),
}
_PARSE = parse(Config)


@given(st.fixed_dictionaries({}, optional=_VALUES))
def test_a_derived_command_line_is_read_back(values: dict[str, Any]) -> None:
    assert _PARSE(to_arguments(Config, values))[Config] == values


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (RunConfig, {"agent": "hf:m?dtype=x", "tasks": ("a/1", "b/2"), "elicitation": {"top_p": 0.9, "one_line": False}}),
        (TracesConfig, {"agent": "scripted?slips=0.1", "episodes": 7, "parquet": True}),
        (ProbeConfig, {"agent": "hf:m", "reference": "runs/r", "answers": Path("p"), "elicitation": {"style": "template"}}),
        (SFTConfig, {"model": "m", "data": ("t",), "betas": (0.9, 0.95), "elicitation": {"trace_tokens": 9}}),
        (Resources, {"num_envs": 3, "workers": 0, "cache_gb": 0.5}),
    ],
)
def test_stages_are_derived_from_requests(model: type[BaseModel], values: dict[str, Any]) -> None:
    assert parse(model)(to_arguments(model, values))[model] == values


def test_an_instance_is_derived_like_a_mapping() -> None:
    elicitation = Elicitation(temperature=0.7)
    words = to_arguments(RunConfig, {"elicitation": elicitation})
    assert parse(RunConfig)(words)[RunConfig] == {
        "elicitation": {name: value for name, value in elicitation if value not in (None, False, ())}
    }
