"""Evaluate a model with verifiers on generated ALFWorld games: the reward is the environment's verdict.

python bridge_verifiers.py --model MODEL --base-url http://127.0.0.1:8000/v1          (pip install 'cotbench[verifiers]')
PYTHONPATH=. vf-eval bridge_verifiers ...      loads this module as a taskset with its harness, for evaluation and training
"""

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

import verifiers.v1 as vf

from cotbench.bridges.verifiers_taskset import CotbenchHarness, CotbenchTaskset, CotbenchTasksetConfig

__all__ = ["CotbenchHarness", "CotbenchTaskset"]  # What verifiers looks for in a module.


async def play(args: argparse.Namespace) -> list[Any]:
    taskset = CotbenchTaskset(
        CotbenchTasksetConfig(
            id="bridge_verifiers",
            environment=args.env,
            split=args.split,
            mode=args.mode,
            episodes=args.episodes,
            max_steps=args.max_steps,
        )
    )
    config = vf.AgentConfig(
        harness=vf.HarnessConfig(id="bridge_verifiers"),
        runtime=vf.SubprocessConfig(),
        model=args.model,
        client=vf.EvalClientConfig(base_url=args.base_url, api_key_var=args.api_key_var),
        sampling=vf.SamplingConfig(),
    )
    async with vf.make_agent(config) as agent:
        return list(await asyncio.gather(*(agent.run(task) for task in taskset)))


def main(words: Sequence[str] | None = None) -> list[Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--base-url", required=True, help="of a server that speaks OpenAI's protocol")
    parser.add_argument("--api-key-var", default="OPENAI_API_KEY", help="environment variable that holds its key")
    parser.add_argument("--env", default="alfworld-gen")
    parser.add_argument("--split", default="id")
    parser.add_argument("--mode", choices=["cot", "prompt", "both"], default="cot")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--max-steps", type=int, default=None)
    traces = asyncio.run(play(parser.parse_args(words)))
    for trace in traces:
        error = trace.errors[-1].message if trace.errors else ""
        print(
            trace.task.data.name,
            f"error: {error}" if error else f"reward {trace.reward:.0f}, {trace.metrics['steps']:.0f} steps",
        )
    return traces


if __name__ == "__main__":
    main()
