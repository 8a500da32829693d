"""What a study could see, before it is begun. Invariant: a pure function of the config; the assumptions are those of
`stats.power` and are printed with the numbers.

A comparison could see a difference that is significant at 5 % (two-sided, before Holm) with a chance of 80 %. In question are
the paper's gains between arms, and for a gap that is called flat the study's margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from cotbench.envs.registry import env_entry
from cotbench.paper import BENEFITS, paper_benefit
from cotbench.paragraph import Paragraph
from cotbench.stats.crossed import FEW_SEEDS
from cotbench.stats.power import (
    CLUSTERING,
    CORRELATION,
    POWER,
    SEED_SD,
    Design,
    detectable_difference,
    independent_states,
    smallest_margin,
)
from cotbench.study.config import StudyConfig, Where
from cotbench.text_table import Kind, TableColumn, TextTable, table_row


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison that a study will make in one environment, for each of its models.

    Attributes:
        quantity: what is compared, such as "CoT alignment, arms".
        design: pairs and seeds.
        wanted: the difference in question; None where none is known beforehand.
        flat: whether it is a test of flatness, and `wanted` its margin.
    """

    env: str
    split: str
    quantity: str
    design: Design
    wanted: float | None = None
    flat: bool = False

    @cached_property
    def sees(self) -> float:
        """The difference that it could see; for flatness the smallest margin within which no change is called flat."""
        return smallest_margin(self.design) if self.flat else detectable_difference(self.design)

    @property
    def too_small(self) -> bool:
        """Whether the difference in question is smaller than what it could see."""
        return self.wanted is not None and self.sees > self.wanted


def planned_comparisons(config: StudyConfig) -> list[PlannedComparison]:
    """Return the comparisons of a study, environment by environment and split by split."""
    return [one for env, splits in config.envs.items() for split in splits for one in _of_split(config, env, split)]


def _of_split(config: StudyConfig, env: str, split: str) -> Iterator[PlannedComparison]:
    tasks = len(env_entry(env).source().tasks(config.scheme, split))
    several = len(config.checkpoints) > 1
    for probe, quantity in (("alignment", "alignment"), ("conflict", "conflict kept")):
        found = next((one for one in config.probes if one.probe == probe), None)
        seeds = 0 if found is None else _seeds(config, found, split)
        if found is None or seeds == 0:
            continue
        states = found.count(split)
        design = Design(independent_states(states, min(tasks, states)), seeds)
        if several:
            yield PlannedComparison(env, split, f"{quantity}, change", design)
        if several and probe == "alignment":
            yield PlannedComparison(env, split, "gap, flat within", design, config.margin, flat=True)
        if len(config.arms) > 1 and probe == "alignment":
            yield PlannedComparison(env, split, "alignment, arms", design, _wanted(config, env, split))
    for runs in config.runs:
        seeds = _seeds(config, runs, split)
        if len(config.arms) > 1 and seeds:
            design = Design(min(tasks, runs.episodes or tasks), seeds)
            yield PlannedComparison(env, split, "success, arms", design, _wanted(config, env, split))
            return


def _seeds(config: StudyConfig, measurement: Where, split: str) -> int:
    """Return with how many seeds the arms are measured at the end of the training, that with the fewest."""
    last = max(config.checkpoints)
    if last == 0:
        return 0
    counts = [sum(measurement.holds(arm.name, seed, last, split) for seed in arm.seeds_of(config.seeds)) for arm in config.arms]
    return min((count for count in counts if count), default=0)


def _wanted(config: StudyConfig, env: str, split: str) -> float:
    """Return the gain in question between arms: the paper's out of domain, else the largest that it reports."""
    own = paper_benefit(env_entry(env).benchmark, split, config.scheme)
    return max(BENEFITS) if own is None else own


def power_parts(config: StudyConfig) -> list[Paragraph | TextTable]:
    """Return what the comparisons of a study could detect, a table for each environment; empty where it makes none."""
    found = planned_comparisons(config)
    if not found:
        return []
    parts: list[Paragraph | TextTable] = [
        Paragraph(
            f"\nwhat it could detect: differences found with a power of {POWER:.0%} (two-sided 5 %); assumed: rates near 0.5, "
            f"correlation of pairs {CORRELATION:g}, of the states of a task {CLUSTERING:g}, standard deviation of a rate "
            f"between seeds {SEED_SD:g}; n: independent pairs"
        )
    ]
    parts += [_table(env, some) for env in config.envs if (some := [one for one in found if one.env == env])]
    return parts + [
        Paragraph(f"warning: {text}") for text in (*_too_small(found, config.margin), *_few_seeds(len(config.seeds)))
    ]


def _table(env: str, some: Sequence[PlannedComparison]) -> TextTable:
    titles = ("split", "n", "seeds", "detectable", "of interest")
    kinds: tuple[Kind, ...] = ("label", "number", "number", "number", "label")
    columns = (TableColumn(env, "label"), *map(TableColumn, titles, kinds))
    return TextTable(columns, tuple(table_row(one.quantity, *_cells(one)) for one in some))


def _cells(one: PlannedComparison) -> tuple[str, ...]:
    wanted = "" if one.wanted is None else f"{'margin ' if one.flat else ''}{one.wanted:g}"
    sees = f"{one.sees:.2f}" if one.sees < 1 else "none"
    return one.split, f"{one.design.n:.0f}", str(one.design.seeds), sees, f"{wanted}{', too small' if one.too_small else ''}"


def _too_small(found: Sequence[PlannedComparison], margin: float) -> Iterator[str]:
    small = [one for one in found if one.too_small]
    flat, arms = [one for one in small if one.flat], [one for one in small if not one.flat]
    if flat:
        yield (
            f"too small for the margin {margin:g}: {len(flat)} of the tests of flatness could call nothing flat; a margin of "
            f"{max(one.sees for one in flat):.2f}, or more states or seeds, would do"
        )
    if arms:
        yield (
            f"{len(arms)} comparisons of arms are too small for the gains of interest (the paper's are {min(BENEFITS):g} to "
            f"{max(BENEFITS):g}): if they find nothing, that means nothing"
        )


def _few_seeds(seeds: int) -> Iterator[str]:
    if seeds == 1:
        yield (
            "one seed: all tests are over tasks, and say nothing about another training run: nothing of a way to train, of "
            "arms, of a rise or a fall"
        )
    elif seeds < FEW_SEEDS:
        yield f"{seeds} seeds are few, and intervals will be wide; compare arms with at least {FEW_SEEDS}"
