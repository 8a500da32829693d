"""`cotbench export`: results in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.flags import Import
from cotbench.cli.terminal import echo, echo_json

app = typer.Typer(
    help="Write results in the formats of other tools: data sets and model cards for a hub, eval results.",
    no_args_is_help=True,
    add_completion=False,
)

_Json = Annotated[bool, typer.Option("--json", help="Print the paths of the files as JSON")]


@app.command("hub")
def hub(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Finished folder of a run, of traces or of a probe")],
    out: Annotated[Path, typer.Option(help="Folder of the data set, new or empty")],
    push: Annotated[str | None, typer.Option(metavar="USER/NAME", help="Upload it to this private data set on the hub")] = None,
    import_: Import = None,
    json_: _Json = False,
) -> int:
    """Write a run, traces or a probe as a data set with its card, as `datasets` reads it and a hub shows it."""
    from cotbench.bridges import hub_folder

    files = hub_folder.write_hub_folder(folder, out)
    if json_:
        _print(files, as_json=True)
    else:
        echo(f"{out}: {len(files)} files; read it with datasets.load_dataset({str(out)!r})")
    if push is not None:
        echo(hub_folder.push(push, out))
    elif not json_:
        echo(f"to upload it: {hub_folder.push_command('USER/NAME', out)}")
    return 0


@app.command("eval-results")
def eval_results(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder")],
    out: Annotated[Path, typer.Option(help="Where the files go, in a folder named after the model")] = Path("eval-results"),
    import_: Import = None,
    json_: _Json = False,
) -> int:
    """Write a run's results and samples in the format of lm-evaluation-harness."""
    from cotbench.bridges.eval_results import write_eval_results
    from cotbench.runs.results import load_run

    _print(write_eval_results(load_run(run), out), as_json=json_)
    return 0


@app.command("card")
def card(
    training: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a training, or of one of its checkpoints")],
    out: Annotated[Path | None, typer.Option(help="File to write", show_default="DIR/README.md")] = None,
    json_: _Json = False,
) -> int:
    """Write the model card of a trained model."""
    from cotbench.bridges.model_card import write_model_card

    _print([write_model_card(training, out)], as_json=json_)
    return 0


def _print(files: list[Path], *, as_json: bool) -> None:
    import json

    if as_json:
        echo_json(json.dumps([str(file) for file in files]))
        return
    for file in files:
        echo(str(file))
