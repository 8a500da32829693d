"""Where a trace changes the action: counts the revisions of a run of mode `both`, by type of task.

`python revisions.py RUN`; without a folder it reads the run that `searcher.py` has left.
"""

from __future__ import annotations

import sys

import cotbench

USUAL = "runs/searcher_alfworld-gen_id_both_seed0"


def main(folder: str) -> None:
    """Print the table.

    Args:
        folder: a run folder.
    """
    run = cotbench.load_run(folder)
    types = run.episodes[["task", "mode", "task_type"]]
    steps = run.steps.query("mode == 'cot'").merge(types, on=["task", "mode"])
    steps["revised"] = steps["action"] != steps["prompt_action"]
    print(steps.groupby("task_type")["revised"].agg(states="size", revised="sum", rate="mean").round(2).to_string())
    revisions = run.summary.revisions
    if revisions is not None:
        print(f"helped {revisions.helped}, hurt {revisions.hurt}, neither {revisions.neither}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else USUAL)
