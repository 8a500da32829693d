"""`cotbench run --show-prompt`: what a model is sent, before anything is played. Invariant: nothing is written to a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cotbench.agents.prompt_preview import PromptPreview, preview
from cotbench.cli.terminal import echo, echo_json
from cotbench.runs.first_queries import first_queries
from cotbench.runs.plan import RunPlan
from cotbench.runs.tables import NAMES


def print_prompts(plans: Sequence[tuple[RunPlan, Path | None]], as_json: bool) -> int:
    """Print the prompts at the first state of each run's first task, in each of its modes.

    Args:
        plans: the plan of each run, with its data folder.
        as_json: print a JSON list instead.

    Returns:
        The exit code.
    """
    found = [preview(plan.config.agent, query) for plan, data in plans for query in first_queries(plan, data)]
    if as_json:
        echo_json(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return 0
    for number, one in enumerate(found):
        echo(("\n" if number else "") + _text(one))
    return 0


def _text(one: PromptPreview) -> str:
    """Return a prompt with headings between its parts."""
    lines = [f"=== {NAMES[one.mode]} mode, {one.env}, task {one.task}, elicitation {one.elicitation}"]
    if one.rendered is None:
        for message in one.messages:
            lines += [f"--- {message.role}", message.content]
        if one.tools:
            lines.append(f"--- {one.tools} functions are sent as tools")
        lines += ["--- assistant, written by cotbench", one.opening] if one.opening else []
    else:
        lines += [f"--- {one.prompt_tokens} tokens, as the model's chat template writes them", one.rendered]
    if one.candidates:
        lines.append(f"--- here each of {one.candidates} admissible actions is scored; nothing is generated")
    else:
        opened = f", behind {one.opening!r}, which cotbench writes" if one.opening else ""
        lines.append(f"--- here the model begins to generate{opened}")
    return "\n".join(lines)
