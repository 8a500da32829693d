"""How much a run may spend, in tokens and dollars. Invariant: a limit changes no episode: none begins for which no room is
left, and what is being played then is played to its end, so the episodes that were played are the first of the plan.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cotbench.agents.registry import parse_spec
from cotbench.errors import UsageError, did_you_mean
from cotbench.flags import EXECUTION, Flag
from cotbench.runs.episode_row import EpisodeRow

_MILLION = 1_000_000
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(BaseModel):
    """What a run may spend; what was played of it before counts too."""

    model_config = _STRICT

    limit_tokens: Annotated[int | None, Flag(panel=EXECUTION, metavar="INT")] = Field(
        None,
        ge=1,
        description="begin no episode beyond this number of computed tokens (generated, and prompts less what was cached)",
    )
    limit_cost: Annotated[float | None, Flag(panel=EXECUTION, metavar="USD")] = Field(
        None, gt=0, description="begin no episode beyond this many dollars; needs --prices"
    )
    prices: Annotated[Path | None, Flag(panel=EXECUTION)] = Field(
        None,
        description="TOML file: model -> dollars per million prompt, cached and completion tokens; adds dollars to the table",
    )


class Price(BaseModel):
    """What a model costs, in dollars per million tokens.

    Attributes:
        prompt: of prompts, as far as they are computed.
        cached: of prompts that the server had cached; as `prompt` where left out.
        completion: generated.
    """

    model_config = _STRICT

    prompt: float = Field(ge=0, le=_MILLION)
    cached: float | None = Field(None, ge=0, le=_MILLION)
    completion: float = Field(ge=0, le=_MILLION)

    def dollars(self, *, prompt: int, cached: int, completion: int) -> float:
        """Return the price of some tokens.

        Args:
            prompt, cached, completion: how many of each.
        """
        of_cached = self.prompt if self.cached is None else self.cached
        return (prompt * self.prompt + cached * of_cached + completion * self.completion) / _MILLION

    def of_decisions(self, row: EpisodeRow) -> float:
        """Return the price of an episode's executed decisions."""
        return self.dollars(prompt=row.prefilled_tokens, cached=row.reused_tokens, completion=row.generated_tokens)

    def of_prompt_actions(self, row: EpisodeRow) -> float:
        """Return the price of the prompt actions at an episode's states, which were not executed."""
        return self.dollars(
            prompt=row.prompt_prefilled_tokens, cached=row.prompt_reused_tokens, completion=row.prompt_generated_tokens
        )


_PRICES: TypeAdapter[dict[str, Price]] = TypeAdapter(dict[str, Price])


def read_prices(path: Path) -> dict[str, Price]:
    """Return the prices of a file, by model.

        ["gpt-4.1-mini"]
        prompt = 0.40
        cached = 0.10
        completion = 1.60

    Raises:
        UsageError: it cannot be read, is not TOML, or holds something else.
    """
    try:
        return _PRICES.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"--prices {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--prices {path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"--prices {path}: {place}: {first['msg']}; a model has prompt and completion, and cached where that is cheaper, "
            "in dollars per million tokens"
        ) from error


def price_of(spec: str, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of the model of an agent; None where it is not listed.

    Args:
        spec: of the agent. Its model is listed by the whole spec without options, or by the model's name alone.
        prices: by model.
    """
    agent = parse_spec(spec)
    names = (spec, f"{agent.name}:{agent.target}", agent.target, agent.target.rpartition("@")[0])
    return next((prices[name] for name in names if name in prices), None)


class Budget:
    """What the episodes of a command may spend together, and what they have spent.

    Args:
        limits: the limits.
        spec: of the agent.

    Attributes:
        price: of its model; None where none is known.
        stopped: whether an episode was not begun because no room was left.

    Raises:
        UsageError: the file of prices cannot be used, or a limit of dollars has no price.
    """

    def __init__(self, limits: Limits, spec: str) -> None:
        prices = {} if limits.prices is None else read_prices(limits.prices)
        self.price = price_of(spec, prices)
        self.stopped = False
        self._limits = limits
        self._tokens = self._episodes = 0
        self._dollars = 0.0
        if limits.limit_cost is not None and limits.prices is None:
            raise UsageError("--limit-cost needs prices: --prices FILE.toml, model -> prompt and completion per million tokens")
        if limits.limit_cost is not None and self.price is None:
            near = did_you_mean(parse_spec(spec).target.rpartition("@")[0] or spec, prices)
            raise UsageError(f"--limit-cost: {limits.prices} has no price of {spec}{near or ': add one'}")

    def add(self, row: EpisodeRow) -> None:
        """Count what an episode has spent, an error's too."""
        self._episodes += 1
        self._tokens += row.generated_tokens + row.prefilled_tokens + row.prompt_generated_tokens + row.prompt_prefilled_tokens
        if self.price is not None:
            self._dollars += self.price.of_decisions(row) + self.price.of_prompt_actions(row)

    def has_room(self, in_play: int) -> bool:
        """Return whether one more episode may begin: it and those that are being played are expected to take what those before
        took on average.

        Args:
            in_play: how many are being played.
        """
        share = 0.0 if not self._episodes else (in_play + 1) / self._episodes
        spent = ((self._tokens, self._limits.limit_tokens), (self._dollars, self._limits.limit_cost))
        room = all(limit is None or (used < limit and used + share * used <= limit) for used, limit in spent)
        self.stopped = self.stopped or not (room or in_play)
        return room

    @property
    def spent(self) -> str:
        """What was spent, in words."""
        dollars = f", ${self._dollars:.2f}" if self.price is not None else ""
        return f"{self._tokens:,} tokens{dollars}"
