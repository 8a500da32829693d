"""`cotbench leaderboard rerun`: an entry's agent, played again on a sample of its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli import leaderboard
from cotbench.cli.flags import Data, Import
from cotbench.cli.leaderboard import Db, Json, opened_store, require_leaderboard
from cotbench.cli.terminal import echo, echo_json
from cotbench.cli.trust import says_yes

app = leaderboard.app


@app.command()
def rerun(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of a replayed entry", show_default=False)],
    episodes: Annotated[
        int, typer.Option("--episodes", "-n", min=1, help="Number of tasks, drawn from the entry's; each in every mode")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw")] = 0,
    agent: Annotated[
        str | None,
        typer.Option(
            help="Agent with the same weights on this machine, as in hf:./model", show_default="the entry's, if hf:NAME"
        ),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Load the model that the entry names without asking")] = False,
    data: Data = None,
    import_: Import = None,
    db: Db = None,
    json_: Json = False,
) -> int:
    """Play an entry's open-weight agent again and compare its answers; if they are the same, the entry is marked reproduced."""
    import tempfile

    require_leaderboard()
    from cotbench.agents.base import close_agent
    from cotbench.agents.registry import resolve
    from cotbench.errors import UsageError
    from cotbench.leaderboard.submission.bundle import unpack
    from cotbench.leaderboard.submission.checks import check
    from cotbench.leaderboard.verification.rerun import (
        compare_rerun,
        rerun_config,
        rerun_options,
        rerun_spec,
        weights_of,
    )
    from cotbench.runs.runner import run

    with opened_store(db) as store:
        entry = store.entry(id)
        if entry.state != "replayed":
            raise UsageError(f"entry {entry.id} is {entry.state}: replay it first with: cotbench leaderboard verify {entry.id}")
        bundle = unpack(store.bundle(entry.id))
        check(bundle)
        spec = agent or rerun_spec(bundle.manifest)
        options = {} if agent else rerun_options(bundle.manifest, spec)
        if not agent:
            _confirm(spec, options, entry.id, trust)
        loaded = resolve(spec, options)()
        try:
            weights = weights_of(bundle.manifest.agent, loaded)
            config = rerun_config(bundle, episodes, seed)
            with tempfile.TemporaryDirectory(prefix="cotbench-rerun-") as folder:
                outcome = run(config, out=Path(folder) / "run", agent=loaded, data=data)
                found = compare_rerun(bundle, outcome.manifest, outcome.records, seed=seed, weights=weights)
        finally:
            close_agent(loaded)
        level = store.reproduce(entry.id, found).level
    if json_:
        echo_json(found.model_dump_json(indent=2))
    else:
        share = found.decisions_agreeing / max(1, found.decisions)
        echo(
            f"{id} {level}: {found.decisions_agreeing:,} of {found.decisions:,} decisions the same ({share:.1%}), on "
            f"{found.tasks} of {found.of} tasks" + (f"; first {found.first}" if found.first else "")
        )
    return int(level != "reproduced")


def _confirm(spec: str, options: dict[str, str], id: str, trust: bool) -> None:
    """Let the operator confirm what an entry wants to be loaded.

    Raises:
        UsageError: nobody has.
    """
    from cotbench.errors import UsageError

    revision = "".join(f", {name} {value}" for name, value in options.items())
    what = f"entry {id} names the model {ascii(spec + revision)[1:-1]}"
    if not trust and not says_yes(f"{what}.\nLoad it?"):
        raise UsageError(f"{what}, which you did not type: add --trust to load it, or give --agent")
