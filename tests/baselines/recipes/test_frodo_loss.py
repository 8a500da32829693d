"""The losses of `frodo`: by hand, their gradients' signs, and independence of rows."""

import math

import pytest

torch = pytest.importorskip("torch")

from cotbench.baselines.recipes.frodo_loss import AnswererLoss, hinge
from cotbench.baselines.training.branch_loss import PairLoss, SigmoidPreference, branch_sums, group_losses
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree


def tensor(*numbers: float) -> "torch.Tensor":
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 0.0), (2.0, 0.5)])
def test_hinge_by_hand(margin: float, expected: float) -> None:
    assert float(hinge(tensor(-0.5), tensor(-2.0), margin).detach()) == pytest.approx(expected)


def test_hinge_raises_the_action_after_the_right_trace_and_lowers_it_after_the_other() -> None:
    right, crossed = tensor(-0.5), tensor(-2.0)
    hinge(right, crossed, 2.0).sum().backward()
    assert right.grad is not None and crossed.grad is not None
    # A step against the gradient: log p(a*|p,t*) rises, log p(a*|p,t') falls.
    assert float(right.grad) == -1 and float(crossed.grad) == 1


def test_hinge_has_no_gradient_where_the_margin_is_reached() -> None:
    right, crossed = tensor(-0.5), tensor(-2.0)
    hinge(right, crossed, 1.0).sum().backward()
    assert right.grad is not None and float(right.grad) == 0


def test_answerer_loss_by_hand() -> None:
    logprobs = torch.tensor([[-0.5, -0.7, -2.0], [-1.0, -3.0, -0.25]], dtype=torch.float64)
    loss, figures = AnswererLoss(margin=2.0)(logprobs, torch.zeros_like(logprobs), torch.ones(2, 3, dtype=torch.bool))
    assert loss.tolist() == pytest.approx([0.5 + 0.7 + 0.5, 1.0 + 3.0 + 2.75])
    assert figures["trace_effect"].tolist() == pytest.approx([1.5, -0.75])
    assert figures["hinge_active"].tolist() == [1, 1]
    weighed, _ = AnswererLoss(2.0, counterfactual_weight=0.5, hinge_weight=2.0)(
        logprobs, torch.zeros_like(logprobs), torch.ones(2, 3, dtype=torch.bool)
    )
    assert weighed.tolist() == pytest.approx([0.5 + 0.35 + 1.0, 1.0 + 1.5 + 5.5])


def test_a_masked_action_has_no_hinge() -> None:
    logprobs = torch.tensor([[-0.25, -0.25, 0.0]], dtype=torch.float64)  # Of the closing tags alone; nothing of the third.
    loss, figures = AnswererLoss(margin=2.0)(logprobs, torch.zeros_like(logprobs), torch.tensor([[True, True, False]]))
    assert loss.tolist() == pytest.approx([0.5])
    assert all(numbers.numel() == 0 for numbers in figures.values()), "a closing tag alone is no action"


def test_preference_by_hand() -> None:
    """Issue's numbers of DPO: sums over trace and action, beta 0.1."""
    pair = torch.tensor([[-3.0, -4.5]], dtype=torch.float64)
    reference = torch.tensor([[-3.7, -3.4]], dtype=torch.float64)
    loss, figures = PairLoss(SigmoidPreference(0.1))(pair, reference, torch.ones(1, 2, dtype=torch.bool))
    assert float(figures["margin"]) == pytest.approx(0.18)
    assert float(loss) == pytest.approx(0.6072, abs=5e-5)
    more, _ = PairLoss(SigmoidPreference(0.1), likelihood_weight=0.5)(pair, reference, torch.ones(1, 2, dtype=torch.bool))
    assert float(more) == pytest.approx(float(loss) + 1.5)


def test_equal_margins_cost_log_two() -> None:
    pair = torch.tensor([[-3.0, -4.5]], dtype=torch.float64)
    loss, _ = PairLoss(SigmoidPreference(0.1))(pair, pair, torch.ones(1, 2, dtype=torch.bool))
    assert float(loss) == pytest.approx(math.log(2))


def trees() -> list[Tree]:
    """Two trees whose last branch leaves at the end of the trunk, and one in which it does not."""
    ones = (1.0,)
    return [
        Tree((1, 2, 3), (Branch(2, (4, 5), (0.0, *ones)), Branch(3, (6, 7), (1.0, 1.0)), Branch(3, (8,), ones))),
        Tree((1, 2, 3), (Branch(1, (4,), ones), Branch(2, (6, 7, 8), (1.0, 0.0, 1.0)))),
        Tree((1, 2), (Branch(2, (4, 5), (0.0, 0.0)), Branch(2, (9,), (2.0,)))),
    ]


def test_branch_sums_in_either_order_of_tokens() -> None:
    packed = pack(trees())
    # The value of a token is its id: the sums then say which tokens were added to which branch.
    by_row = branch_sums(packed, torch.tensor(packed.target, dtype=torch.float64))
    branches = [branch for tree in trees() for branch in tree.branches]
    by_branch = [id_ for one in branches for id_, weight in zip(one.ids, one.weights, strict=True) if weight]
    in_order = branch_sums(packed, torch.tensor(by_branch, dtype=torch.float64), row_order=False)
    assert by_row.tolist() == in_order.tolist() == [5, 13, 8, 4, 14, 0, 9]


def test_branch_sums_refuse_what_has_no_groups() -> None:
    with pytest.raises(ValueError, match="trunk"):
        branch_sums(pack([Tree((1, 2), (), (1.0, 1.0))]), torch.ones(1))
    with pytest.raises(ValueError, match="3 values for 8"):
        branch_sums(pack(trees()), torch.ones(3))


def test_a_step_in_one_row_costs_what_it_costs_in_two() -> None:
    groups = [
        Tree((1, 2, 3), (Branch(3, (4, 5), (1.0, 1.0)), Branch(3, (6,), (1.0,), reference=-0.25))),
        Tree((1, 2), (Branch(2, (7, 8), (1.0, 1.0), reference=-1.0), Branch(2, (9,), (1.0,)))),
    ]
    nll = {4: 0.5, 5: 0.25, 6: 2.0, 7: 1.0, 8: 0.125, 9: 0.75}

    def cost(rows: list[list[Tree]]) -> float:
        total, margins = 0.0, []
        for row in rows:
            packed = pack(row)
            numbers = torch.tensor([nll[id_] for id_ in packed.target], dtype=torch.float64)
            losses, figures = group_losses(PairLoss(SigmoidPreference(0.5)), numbers, torch.ones_like(numbers), packed)
            total += float(losses.sum()) / 2
            margins += figures["margin"].tolist()
        assert margins == pytest.approx([0.5 * (-0.75 + 1.75), 0.5 * (-0.125 + 0.75)])
        return total

    assert cost([groups]) == pytest.approx(cost([groups[:1], groups[1:]]))


def test_what_is_logged_is_of_the_groups_of_all_processes() -> None:
    """Also by a process that had no groups since the last log: all reduce the same numbers."""
    pytest.importorskip("transformers")
    from types import SimpleNamespace

    from cotbench.baselines.training.group_trainer import GroupTrainer

    def trainer(figures: dict[str, list["torch.Tensor"]], others: "torch.Tensor") -> GroupTrainer:
        one = GroupTrainer.__new__(GroupTrainer)
        one._group_loss, one._figures = AnswererLoss(), figures
        one.args = SimpleNamespace(device="cpu")
        one.accelerator = SimpleNamespace(num_processes=2, reduce=lambda own, how: sent.append(own) or own + others)
        return one

    sent: list[torch.Tensor] = []
    _, figures = AnswererLoss()(tensor(-1.0, -2.0, -4.0).view(1, 3), torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
    own = {name: [numbers.detach()] for name, numbers in figures.items()}
    nothing = trainer(own, torch.zeros(5, 2))._means()
    assert nothing == {name: pytest.approx(float(numbers.detach().mean())) for name, numbers in figures.items()}
    assert nothing["trace_effect"] == pytest.approx(3.0)
    both = trainer({}, sent[0])._means()
    assert both == nothing and sent[0].shape == sent[1].shape
    assert trainer({}, torch.zeros(5, 2))._means() == {}, "no groups at all"
