"""Demonstrations for tests: a task played by its environment's own expert."""

from __future__ import annotations

import json
from contextlib import closing

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.envs.registry import env_entry


def played_by_expert(env: str, task: str, **options: str) -> Demonstration:
    """A task of split `train`, won by the expert; the trace of a step is its task and number.

    Args:
        env: the environment's name.
        task: the task id.
        options: of the environment.
    """
    with closing(env_entry(env).make(split="train", request=["expert_action"], **options)) as engine:
        text, info = engine.reset(options={"task": task})
        functions = "\n".join(map(json.dumps, info.get("functions", ())))
        texts, actions, over = [text], [], False
        while not over:
            actions.append(info["expert_action"])
            text, _, over, _, info = engine.step(actions[-1])
            texts.append(text)
    assert info["success"]
    return Demonstration(
        env=env,
        task=task,
        functions=functions,
        observations=tuple(texts[:-1]),
        actions=tuple(actions),
        traces=tuple(f"{task}, step {step}" for step in range(len(actions))),
    )
