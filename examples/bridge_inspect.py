"""Evaluate a model with inspect_ai on generated ALFWorld games, in both modes: the score is the environment's verdict.

python bridge_inspect.py --model openai/gpt-4o-mini      (pip install 'cotbench[inspect]', and the provider's own client)
inspect eval cotbench/cotbench -T env=alfworld-gen -T split=ood -T episodes=20 --model MODEL        does the same
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai import eval as evaluate
from inspect_ai.log import EvalLog

from cotbench.bridges import inspect_task
from cotbench.bridges.inspect_tasks import episode_of


def main(words: Sequence[str] | None = None, model: Any = None) -> EvalLog:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="as inspect_ai names models: PROVIDER/NAME; default: $INSPECT_EVAL_MODEL")
    parser.add_argument("--env", default="alfworld-gen")
    parser.add_argument("--split", default="id")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--max-steps", type=int, default=10, help="step budget of an episode")
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    args = parser.parse_args(words)
    task = inspect_task(args.env, args.split, episodes=args.episodes, max_steps=args.max_steps)
    (log,) = evaluate(task, model=model or args.model, display="none", log_dir=str(args.logs))
    for score in log.results.scores if log.results else ():
        for metric in score.metrics.values():
            print(f"{metric.name}: {metric.value:.2f}")
    # Each sample holds its whole episode: here, how often the trace changed the action.
    episodes = [episode_of(sample.store) for sample in log.samples or () if sample.error is None]
    steps = [step for episode in episodes for step in episode.trajectory if step.prompt_action is not None]
    if steps:
        print(f"the trace changed {sum(step.revised for step in steps)} of {len(steps)} actions")
    return log


if __name__ == "__main__":
    main()
