"""Recipe `noise`: a control arm. Nothing is learned; noise is added to the weights, more at each checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cotbench.envs.registry import TokenSizes
from cotbench.recipes import Recipe, register_recipe


class NoiseConfig(BaseModel):
    """What is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="what gets noise: hub name, alias, folder, tiny")
    scale: float = Field(0.01, ge=0, description="standard deviation of the noise at the end, as a share of each weight's own")
    checkpoints: tuple[float, ...] = Field((1.0,), description="shares of the noise after which a checkpoint is written")
    seed: int = Field(0, ge=0, description="seed of the noise")


@dataclass(frozen=True)
class Noisy:
    """A model with noise."""

    folder: Path
    summary_line: str


def run(config: NoiseConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> Noisy:
    """Write the checkpoints and the model with all of the noise."""
    import torch

    from cotbench.agents.hf import loading
    from cotbench.baselines.training.recipe_card import prepare_folder, write_begun
    from cotbench.baselines.training.trainer import write_card

    record = {"recipe": "noise", "config": config.model_dump(mode="json"), "data": {}, "elicitations": {}}
    prepare_folder(out, record, resume=resume)
    write_begun(out, record)
    loaded = loading.load(config.model, device="cpu", dtype="float32")
    weights = {name: one.detach().clone() for name, one in loaded.model.named_parameters()}
    for step, share in enumerate(sorted({*config.checkpoints, 1.0}), start=1):
        generator = torch.Generator().manual_seed(config.seed)
        with torch.no_grad():
            for name, one in loaded.model.named_parameters():
                noise = torch.randn(one.shape, generator=generator)
                one.copy_(weights[name] * (1 + share * config.scale * noise))
        for folder in [out / f"checkpoint-{step}", *([out] if share == 1.0 else [])]:
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            write_card(folder, {**record, "step": step, "steps": step, "progress": share, "seen": {}})
    return Noisy(out, f"added noise of scale {config.scale:g} to {len(weights)} weights")


def cost(config: NoiseConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return how many tokens go through the model: none."""
    return 0.0


NOISE = register_recipe(
    Recipe(
        name="noise",
        description="a control: noise on the weights, nothing learned",
        config=NoiseConfig,
        run=run,
        cost=cost,
        stages=lambda config: (),
    )
)
