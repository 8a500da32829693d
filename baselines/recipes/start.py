"""The checkpoint that a training begins from. Invariant: a model that was trained to be asked in one way is not, unnoticed,
trained on to be asked in another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cotbench.baselines.training.recipe_card import CARD
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation


def check_start(model: str, elicitations: Mapping[str, Elicitation]) -> None:
    """Raise an error for a start checkpoint of another elicitation; a model without a card is not known to have one.

    Args:
        model: what the training begins from, as its option says.
        elicitations: environment -> the elicitation that evaluation will use.

    Raises:
        UsageError: the checkpoint was trained with another elicitation, or its card is damaged.
    """
    path = Path(model).expanduser() / CARD
    if not path.is_file():
        return
    try:
        known = dict(json.loads(path.read_text("utf-8"))["elicitations"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged: train the start checkpoint again, or begin from another --model") from error
    for env, elicitation in elicitations.items():
        if known.get(env, elicitation.fingerprint) != elicitation.fingerprint:
            raise UsageError(
                f"--model {model} was trained with elicitation {known[env]} of {env or 'its data'}, this training has "
                f"{elicitation.fingerprint}: give it the same --elicitation options, or begin from another checkpoint"
            )
