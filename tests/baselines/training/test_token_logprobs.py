"""Log-probabilities of given tokens: the same as one forward pass a row gives, in the order of the rows, with its gradients."""

from __future__ import annotations

from typing import Any

import pytest

from cotbench.baselines.training.token_logprobs import TokenRow, row_cost, row_groups, row_sums, row_trees, token_logprobs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

ROWS = (  # An episode of three turns, two answers to one prompt, and another text.
    TokenRow((5, 6, 7), (8, 9, 10), (True, False, True)),
    TokenRow((5, 6, 7, 11, 12), (8, 13), (True, True)),
    TokenRow((5, 6, 7, 11, 12, 14), (15, 16, 17), (False, True, True)),
    TokenRow((20, 21), (22, 23), (True, True)),
    TokenRow((20, 21), (24,), (True,)),
    TokenRow((30,), (31, 32), (False, False)),
    TokenRow((33,), (34, 35), (True, False)),
)


def _model(seed: int = 3) -> Any:
    import transformers

    torch.manual_seed(seed)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**shape, num_key_value_heads=2, head_dim=8, max_position_embeddings=256, initializer_range=0.3)
    )


def _plain(model: Any, rows: Any) -> Any:
    """One forward pass a row, with the model's own attention."""
    found = []
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
        for place, wanted in enumerate(row.wanted, len(row.prompt)):
            if wanted:
                found.append(scores[place - 1, ids[0, place]])
    return torch.stack(found)


def _prepared(kind: str) -> tuple[Any, Any]:
    """A model, and a way to compute its losses."""
    from cotbench.baselines.training.loss import TreeLosses, losses, plain_losses
    from cotbench.baselines.training.packing import install_packed_attention
    from cotbench.baselines.training.tree_attention import install_tree_attention

    model = _model()
    if kind == "plain":
        return model, plain_losses
    if kind == "packed":
        install_packed_attention(model)
        return model, losses
    install_tree_attention(model)
    return model, TreeLosses(dense=True)


@pytest.mark.parametrize("tokens", [4, 20, 8192])
@pytest.mark.parametrize("kind", ["packed", "plain", "trees"])
def test_every_way_of_computing_gives_what_one_pass_a_row_gives_with_its_gradients(kind: str, tokens: int) -> None:
    own = _model()
    expected = _plain(own, ROWS)
    factor = torch.linspace(-1, 2, len(expected))
    (expected * factor).sum().backward()
    model, compute = _prepared(kind)
    found = token_logprobs(model, ROWS, compute=compute, tokens=tokens)
    (found * factor).sum().backward()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    for ours, theirs in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-4, rtol=1e-3)


def test_sums_are_of_each_row() -> None:
    values = torch.arange(10.0)
    sums = row_sums(values, ROWS)
    assert sums.tolist() == [1.0, 5.0, 9.0, 13.0, 8.0, 0.0, 9.0]
    assert row_sums(torch.zeros(0), ()).shape == (0,)


def test_rows_that_continue_each_other_are_computed_once() -> None:
    trees = row_trees(ROWS)
    assert [len(tree.branches) for tree in trees] == [3, 2, 1, 1]
    assert [tree.trunk for tree in trees[:2]] == [(5, 6, 7, 11, 12, 14), (20, 21)]
    numbers = [weight for tree in trees for branch in tree.branches for weight in branch.weights if weight]
    assert numbers == [float(number) for number in range(1, 11)]
    costs = [row_cost(row, before) for row, before in zip(ROWS, (None, *ROWS), strict=False)]
    assert sum(costs) == sum(tree.tokens for tree in trees)


def test_groups_keep_the_order_and_the_bound() -> None:
    groups = list(row_groups(ROWS, 12))
    assert [row for group in groups for row in group] == list(ROWS)
    assert all(sum(tree.tokens for tree in row_trees(group)) <= 12 for group in groups if len(group) > 1)
    assert list(row_groups((), 12)) == []


def test_nothing_asked_for_is_nothing() -> None:
    assert token_logprobs(None, ROWS[5:6]).shape == (0,)


def test_a_row_without_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        TokenRow((), (1,), (True,))
