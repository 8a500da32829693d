"""`cotbench pairs`: preference pairs for recipe `dpo`.

Invariant: options typed beside `--resume` are checked against the folder's, never mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.baselines.data.pairs_config import PairsConfig
from cotbench.cli.flags import ConfigFile, Import, Resume, Typed, with_options
from cotbench.cli.terminal import echo, echo_error, echo_json
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT


@with_options(PairsConfig)
def pairs(
    typed: Typed,
    *,
    out: Annotated[Path | None, typer.Option(help="Folder of the pairs", rich_help_panel=OUTPUT)] = None,
    resume: Resume = None,
    config: ConfigFile = None,
    import_: Import = None,
    trust: Trust = False,
    json_: Annotated[bool, typer.Option("--json", help="Print pairs.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Sample a model's answers at the states of traces, and keep those whose action is worse as rejected ones."""
    import sys

    from cotbench.agents.registry import resolve
    from cotbench.baselines.data.pairs import PAIRS_FOLDER, make_pairs, make_pairs_plan
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.config_file import with_config_file
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.errors import UsageError
    from cotbench.runs.folder import make_folder, open_folder

    typed = with_config_file(typed, config)
    given = typed[PairsConfig]
    begun = resume_folder(resume, out)
    target = begun or out
    if target is None:
        raise UsageError("--out is missing: the folder of the pairs")
    settings = _config(begun, given)
    recorded = settings.model_dump(mode="json")
    if begun is not None:
        confirm(recorded, begun, typed=given, trust=trust)
    build = resolve(settings.agent)
    plan = make_pairs_plan(settings)
    again = resume_command("pairs", target, import_ or [], config=recorded)
    manifest = target / PAIRS_FOLDER.manifest

    def check(folder: Path) -> None:
        hint = f"resume with: {again}, or choose another --out" if manifest.is_file() else "choose another --out"
        make_folder(folder, hint, "folder of the pairs")

    try:
        # Locked before the model is loaded, which can take minutes: a second start is refused at once.
        with (
            open_folder(target, PAIRS_FOLDER, check if begun is None else None) as opened,
            open_agent(settings.agent, build) as sampled,
            _progress(quiet=json_ and not sys.stderr.isatty()) as observer,
        ):
            summary = make_pairs(plan, opened, sampled, observer)
    except KeyboardInterrupt:
        return print_interrupted("sampled states are kept", again, manifest)
    return _print(target, summary, json_, again)


def _config(folder: Path | None, given: dict[str, Any]) -> PairsConfig:
    """Return the options: those that were typed, or those of the folder to resume.

    Raises:
        UsageError: the agent or the data are missing, or a value does not fit.
        RunFolderError: an option contradicts the folder's.
    """
    from cotbench.baselines.data.pairs import PAIRS_FOLDER, read_begun
    from cotbench.cli.options import model_of
    from cotbench.errors import UsageError
    from cotbench.runs.folder import check_identity

    if folder is not None:
        before = model_of(PairsConfig, read_begun(folder)["config"])
        now = model_of(PairsConfig, {**before.model_dump(), **given})
        names = list(given)
        check_identity(
            folder,
            {name: getattr(before, name) for name in names},
            {name: getattr(now, name) for name in names},
            PAIRS_FOLDER.noun,
        )
        return before
    if "agent" not in given:
        raise UsageError("--agent is missing: name the checkpoint of recipe sft, as in --agent hf:runs/sft")
    if "data" not in given:
        raise UsageError("--data is missing: make traces with cotbench traces --out DIR, then --data DIR")
    return model_of(PairsConfig, given)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Any, int, int], None]]:
    """Return an observer that shows progress on standard error; how many states there are is known with the first of them."""
    from contextlib import ExitStack

    from cotbench.cli.even_progress import EvenProgress
    from cotbench.cli.progress_display import shown_progress

    with ExitStack() as stack:
        shown: list[EvenProgress] = []
        found = [0]

        def advance(state: Any, done: int, total: int) -> None:
            if not shown:
                display = stack.enter_context(shown_progress("states", total, quiet=quiet))
                shown.append(EvenProgress(display, total, done - 1))
            found[0] += state.pair is not None
            shown[0].advance([f"{found[0]} pairs"], done)

        yield advance


def _print(target: Path, summary: Any, as_json: bool, again: str) -> int:
    """Print the numbers; the exit code is 1 where something failed, or no pair was found."""
    from cotbench.baselines.data.pairs import STATES
    from cotbench.baselines.data.preference_pair import PAIRS_JSONL

    if as_json:
        echo_json(summary.model_dump_json(indent=2))
    else:
        echo(summary.text())
        echo(f"pairs: {target / PAIRS_JSONL}")
    failed = summary.left_out.get("error", 0)
    if failed:
        echo_error(f"error: at {failed} states the agent or the environment failed (why: {STATES}): ask again with: {again}")
        return 1
    if summary.pairs == 0:
        echo_error(f"error: no pair was found at {summary.states} states: {summary.advice}")
        return 1
    return 0
