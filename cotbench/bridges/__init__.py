"""Bridges: the same environments, splits, prompts and verdicts inside other frameworks, and results in their formats. Begin
with `hosted_run` (episodes whose answers come from a framework's model); `inspect_tasks`, `verifiers_taskset` and `trl_rollout`
are one framework each, `hub_folder`, `eval_results` and `model_card` one format each.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.bridges.eval_results import write_eval_results
    from cotbench.bridges.hosted_run import HostedRun, Reply
    from cotbench.bridges.hub_folder import write_hub_folder
    from cotbench.bridges.inspect_tasks import inspect_task
    from cotbench.bridges.model_card import write_model_card
    from cotbench.bridges.trl_rollout import TRLRollout
    from cotbench.bridges.verifiers_taskset import CotbenchHarness, CotbenchTaskset

_HOMES = {
    "CotbenchHarness": "verifiers_taskset",
    "CotbenchTaskset": "verifiers_taskset",
    "HostedRun": "hosted_run",
    "Reply": "hosted_run",
    "TRLRollout": "trl_rollout",
    "inspect_task": "inspect_tasks",
    "write_eval_results": "eval_results",
    "write_hub_folder": "hub_folder",
    "write_model_card": "model_card",
}

__all__ = [
    "CotbenchHarness",
    "CotbenchTaskset",
    "HostedRun",
    "Reply",
    "TRLRollout",
    "inspect_task",
    "write_eval_results",
    "write_hub_folder",
    "write_model_card",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
