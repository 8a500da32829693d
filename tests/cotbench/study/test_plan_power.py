"""What `cotbench study --dry-run` says that a study could see, and what it warns of."""

import pytest

from cotbench.cli import run_cli
from cotbench.stats.power import Design, detectable_difference, smallest_margin
from cotbench.study.config import PRESETS, StudyConfig, parse_study, read_study
from cotbench.study.plan_power import planned_comparisons, power_parts
from cotbench.text_table import TextTable

STUDY = """
name = "made"
models = ["tiny"]
seeds = [0, 1, 2, 3, 4]
checkpoints = [0.0, 1.0]
margin = 0.2
[envs]
alfworld-gen = ["id", "ood"]
[[arms]]
name = "sft"
[[arms]]
name = "sft+"
options = { mask_fraction = 0.3 }
[[runs]]
episodes = 40
[[probes]]
probe = "alignment"
states = 100
[[probes]]
probe = "conflict"
states = 50
splits = ["id"]
"""


def _lines(config: StudyConfig) -> list[str]:
    """The text in a terminal of 80 columns, and each warning as one line."""
    return [line.text for part in power_parts(config) for line in part.lines(80 if isinstance(part, TextTable) else 400)]


def _config(old: str = "", new: str = "") -> StudyConfig:
    return parse_study(STUDY.replace(old, new), "made")


def test_each_comparison_has_what_it_could_see() -> None:
    found = {(one.split, one.quantity): one for one in planned_comparisons(_config())}
    assert [quantity for split, quantity in found if split == "id"] == [
        "alignment, change",
        "gap, flat within",
        "alignment, arms",
        "conflict kept, change",
        "success, arms",
    ]
    assert ("ood", "conflict kept, change") not in found
    change, flat, arms = (found["ood", name] for name in ("alignment, change", "gap, flat within", "success, arms"))
    assert change.sees == detectable_difference(Design(100, 5)) and not change.too_small
    assert flat.sees == smallest_margin(Design(100, 5)) and (flat.wanted, flat.too_small) == (0.2, False)
    assert arms.design == Design(40, 5) and (arms.wanted, arms.too_small) == (0.08, True)  # The paper: 0.55 to 0.63.


def test_it_warns_of_a_margin_that_is_too_small() -> None:
    assert not any("flatness" in line for line in _lines(_config()))
    lines = _lines(_config("margin = 0.2", "margin = 0.05"))
    assert any("too small for the margin 0.05: 2 of the tests of flatness" in line for line in lines)
    assert any("margin 0.05, too small" in line for line in lines)


def test_it_warns_of_few_seeds_and_says_what_one_cannot() -> None:
    five, three, one = (_lines(_config("[0, 1, 2, 3, 4]", seeds)) for seeds in ("[0, 1, 2, 3, 4]", "[0, 1, 2]", "[0]"))
    assert not any("seeds are few" in line or "one seed" in line for line in five)
    assert "3 seeds are few" in three[-1]
    assert "one seed" in one[-1] and "nothing of a way to train" in one[-1]
    assert planned_comparisons(_config("[0, 1, 2, 3, 4]", "[0]"))[0].design.seeds == 1


@pytest.mark.parametrize("name", PRESETS)
def test_it_fits_80_columns(name: str) -> None:
    lines = [line.text for part in power_parts(read_study(name)) for line in part.lines(80)]
    assert any("success, arms" in line for line in lines) and any("of interest" in line for line in lines)
    assert max(len(line) for line in lines) <= 80


def test_the_dry_run_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["study", "smoke", "--dry-run"]) == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    for part in power_parts(read_study("smoke")):
        assert " ".join(" ".join(line.text for line in part.lines(120)).split()) in words
