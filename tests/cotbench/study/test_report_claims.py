"""Verdicts on the paper's claims, of studies whose truth is known."""

from collections.abc import Callable

import pytest

from cotbench.report.cells import csv_text, render_table
from cotbench.study.report_claims import Claim, claims_of, claims_table
from cotbench.study.scope import Scope
from tests.cotbench.study.test_study_report import STUDY, _both_rise, _study

FIVE = STUDY.replace("seeds = [0, 1, 2]", "seeds = [0, 1, 2, 3, 4]")
NO_70 = FIVE.replace('[[arms]]\nname = "sft+70"\noptions = { mask_fraction = 0.7 }\n', "")


def _claims(scope: Scope) -> dict[str, Claim]:
    return {claim.text: claim for claim in claims_of(scope)}


def _made(
    rate: Callable[[str | None, float, str], tuple[float, float]],
    kept: Callable[[float], float] = lambda share: 0.2 + 0.6 * share,
) -> dict[str, Claim]:
    return _claims(_study(rate, kept, NO_70))


def _masks_help(arm: str | None, share: float, split: str) -> tuple[float, float]:
    prompt, cot = _both_rise(arm, share, split)
    return prompt, cot - 0.02 * share * (arm == "sft+" and split == "id")


def test_what_the_paper_says_is_supported_where_it_is_so() -> None:
    found = _made(_masks_help)
    verdicts = {text: claim.verdict for text, claim in found.items()}
    assert verdicts["training improves the prompt action"] == "supported"
    assert verdicts["training improves the CoT action"] == "supported"
    assert verdicts["the gap between them stays flat"] == "supported"
    assert verdicts["a conflicting trace is ignored more and more"] == "supported"
    assert verdicts["masking actions helps out of domain (sft+, alignment)"] == "supported"
    assert verdicts["... and costs nothing in domain (sft+, alignment)"] == "supported"
    assert found["training improves the prompt action"].here == "0.20 to 0.60"
    assert found["the gap between them stays flat"].here == "+0.10 to +0.10"
    # Both domains change alike, so nothing is known of "more so"; and no episode was played, no attention measured.
    more_so = found["... and out of domain more so"]
    assert more_so.verdict == "cannot tell" and more_so.test is not None
    assert (more_so.test.split, more_so.test.against) == ("ood", "id")
    for text in ("the gap stays flat in whole episodes", "actions attend mostly to the prompt"):
        assert (found[text].verdict, found[text].here, found[text].test) == ("cannot tell", "not measured", None)


def test_the_opposite_is_contradicted() -> None:
    found = _made(
        lambda arm, share, split: (0.6 - 0.4 * share, 0.3 + 0.4 * share - (0.2 * share if arm == "sft+" else 0.0)),
        lambda share: 0.8 - 0.6 * share,
    )
    for text in (
        "training improves the prompt action",
        "the gap between them stays flat",
        "a conflicting trace is ignored more and more",
        "masking actions helps out of domain (sft+, alignment)",
        "... and costs nothing in domain (sft+, alignment)",
    ):
        assert found[text].verdict == "contradicted", text
    assert found["training improves the CoT action"].verdict == "supported"


@pytest.mark.parametrize(("level", "verdict"), [(0.08, "cannot tell"), (0.5, "supported")])
def test_who_has_nothing_to_lose_shows_no_harmlessness(level: float, verdict: str) -> None:
    claim = _made(lambda arm, share, split: (0.5, level - 0.02 * share * (arm == "sft+")))[
        "... and costs nothing in domain (sft+, alignment)"
    ]
    assert claim.verdict == verdict and claim.test is not None
    assert ("to lose" in claim.here) == (verdict == "cannot tell")


def test_a_small_change_decides_nothing() -> None:
    found = _made(lambda arm, share, split: (0.5, 0.5 + 0.01 * share), lambda share: 0.5)
    assert found["training improves the prompt action"].verdict == "cannot tell"
    claim = found["training improves the CoT action"]
    assert claim.verdict == "cannot tell" or (claim.difference is not None and (claim.difference.low or 0) > 0)


def test_out_of_domain_is_where_it_was_measured() -> None:
    text = NO_70.replace('["id", "ood"]', '["id", "ood", "ood_room"]') + 'splits = ["id", "ood_room"]\n'
    claim = _claims(_study(_both_rise, lambda share: 0.2 + 0.6 * share, text))["... and out of domain more so"]
    assert claim.here == "change on ood_room minus in domain"
    assert claim.test is not None and claim.test.estimate is not None


def test_one_seed_decides_nothing() -> None:
    scope = _study(_both_rise, text=STUDY.replace("seeds = [0, 1, 2]", "seeds = [0]"))
    assert {claim.verdict for claim in claims_of(scope)} == {"cannot tell"}
    table = claims_table([scope])
    assert table is not None and "intervals over tasks (one seed)" in table.caption


def test_the_table_has_a_row_a_claim_with_interval_n_and_what_it_could_see() -> None:
    scope = _study(_both_rise, text=NO_70)
    table = claims_table([scope])
    assert table is not None
    assert [row[0] for row in table.rows] == [claim.text for claim in claims_of(scope)]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["difference"].mean == pytest.approx(0.4, abs=0.01)  # type: ignore[union-attr]
    assert row["difference"].n == 60  # type: ignore[union-attr]
    assert 0 < float(str(row["detectable"])) < 0.1
    assert "tasks and 5 seeds" in table.caption
    assert render_table(table).rows[0][2].bold
    assert "claim of the paper" in csv_text(table)
    two = claims_table([scope, scope])
    assert two is not None
    assert str(two.rows[0][0]).startswith("tiny, alfworld-gen: ")
