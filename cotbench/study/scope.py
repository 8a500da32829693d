"""The scope of a section of a study's report: one model in one environment, with its arms and splits. Invariant: an arm is
identified by its recipe and options, a split by being out of domain or not; neither by its place in a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.envs.registry import env_entry
from cotbench.recipes import Masking, Recipe, recipe_named
from cotbench.study.arm_training import arm_config
from cotbench.study.config import Where
from cotbench.study.data import StudyCell, StudyData


@dataclass(frozen=True, slots=True)
class ArmInfo:
    """An arm with its recipe and training settings.

    Attributes:
        name: in the study.
        config: of the recipe's config model, with the study's options.
    """

    name: str
    recipe: Recipe
    config: Any

    @property
    def masking(self) -> Masking | None:
        """Reduced action supervision of the arm; None where the recipe has no such option."""
        return None if self.recipe.masking is None else self.recipe.masking(self.config)

    @property
    def unmasked(self) -> bool:
        """Return whether the loss includes every action."""
        return self.masking is None or (self.masking.fraction == 0 and self.masking.usual)

    @property
    def paper_row(self) -> str | None:
        """Row of the paper's tables with the same training; None where there is none."""
        return self.recipe.paper_row(self.config)

    def differs_by_masks_alone(self, other: ArmInfo) -> bool:
        """Return whether two arms have the same training apart from their masks.

        Args:
            other: another arm of the study.
        """
        if self.recipe.run is not other.recipe.run or self.recipe.masking is None:
            return False
        own, others = (
            {name: value for name, value in arm.config.model_dump().items() if name not in self.recipe.mask_options}
            for arm in (self, other)
        )
        return bool(own == others)


@dataclass(frozen=True, slots=True)
class Scope:
    """One model in one environment: the range of a figure's panels and lines."""

    data: StudyData
    env: str
    model: str

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the study's arms."""
        return tuple(arm.name for arm in self.data.config.arms)

    def arm(self, name: str) -> ArmInfo:
        """Return an arm by its name."""
        found = next(arm for arm in self.data.config.arms if arm.name == name)
        return ArmInfo(name, recipe_named(found.recipe), arm_config(self.data.config, self.model, found))

    def baseline(self, arm: str) -> str | None:
        """Return the arm that an arm is compared with; None for the main arm itself.

        The baseline is the arm without masks that is otherwise the same; else one of the recipe that the arm's recipe names;
        else the main arm.

        Args:
            arm: its name.
        """
        found = self._own_baseline(arm)
        return found if found is not None or arm == self.main else self.main

    def _own_baseline(self, name: str) -> str | None:
        arm = self.arm(name)
        others = [self.arm(other) for other in self.arms if other != name and self.same_elicitation(other, name)]
        if not arm.unmasked:
            unmasked = [other for other in others if other.unmasked and arm.differs_by_masks_alone(other)]
            if unmasked:
                return unmasked[0].name
        return next((other.name for other in others if other.recipe.name == arm.recipe.compares_with), None)

    def same_elicitation(self, arm: str, other: str) -> bool:
        """Return whether the answers of two arms are asked for in the same way."""
        config = self.data.config
        return config.elicited_as(arm) == config.elicited_as(other)

    def start_label(self, arm: str) -> str | None:
        """Return the label of a row of the model before training, where it is shown with this arm: the main arm, and the first
        of the arms that are asked in another way; None with any other arm, and with one that begins from another arm's end.
        """
        if arm in self.data.starts:
            return None
        if arm == self.main:
            return "before training"
        first = self.data.config.elicited_as(arm)
        return f"before training, asked as {arm}" if arm == first and not self.same_elicitation(arm, self.main) else None

    @property
    def starts_note(self) -> str:
        """Sentence that says which arms begin from another arm's end, with a space before it; empty where none does."""
        return "".join(f" {one}; which is shown as the checkpoint at 0 %." for one in self.starts_clauses)

    @property
    def starts_clauses(self) -> list[str]:
        """For each arm from whose end others begin, which ones do: "Arms a, b begin from the end of sft, seed by seed"."""
        by_start: dict[str, list[str]] = {}
        for arm, start in self.data.starts.items():
            by_start.setdefault(start, []).append(arm)
        clauses = []
        for start, arms in by_start.items():
            who = f"Arm {arms[0]} begins" if len(arms) == 1 else f"Arms {', '.join(arms)} begin"
            clauses.append(f"{who} from the end of {start}, seed by seed")
        return clauses

    @property
    def main(self) -> str:
        """Name of the arm that is shown where there is room for one: the first that is compared with no other."""
        return next((name for name in self.arms if self._own_baseline(name) is None), self.arms[0])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the environment's splits."""
        return self.data.config.envs[self.env]

    @property
    def out_of_domain(self) -> tuple[str, ...]:
        """Names of the splits that are out of domain."""
        source, scheme = env_entry(self.env).source(), self.data.config.scheme
        return tuple(split for split in self.splits if source.out_of_domain(scheme, split))

    def measured_outside(self, measures: Sequence[Where]) -> tuple[str, ...]:
        """Return the names of the splits out of domain on which any of some measurements is made.

        Args:
            measures: of the study's probes or runs.
        """
        return tuple(
            split for split in self.out_of_domain if any(one.splits is None or split in one.splits for one in measures)
        )

    @property
    def headline(self) -> str:
        """Name of the split of the first sentences: in domain where there is one."""
        outside = self.out_of_domain
        return next((split for split in self.splits if split not in outside), self.splits[0])

    @property
    def paper_env(self) -> str:
        """Name of the benchmark whose numbers the paper reports; empty where other games are played than the paper's."""
        entry = env_entry(self.env)
        return entry.benchmark if entry.official else ""

    def cell(self, arm: str, split: str) -> StudyCell:
        """Return a cell of this scope."""
        return StudyCell(self.env, self.model, arm, split)

    def cells(self, arm: str) -> list[StudyCell]:
        """Return an arm on every split."""
        return [self.cell(arm, split) for split in self.splits]

    def slug(self, name: str) -> str:
        """Return a name as a file name, distinct between the scopes of a study."""
        config = self.data.config
        words = [self.env] * (len(config.envs) > 1) + [self.model.replace("/", "-")] * (len(config.models) > 1)
        return "_".join((name, *words)).replace("+", "plus")
