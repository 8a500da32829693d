"""`cotbench traces`: demonstrations by a teacher, as training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.baselines.data.traces_config import TracesConfig
from cotbench.cli.flags import ConfigFile, Debug, DryRun, Import, Resume, Typed, with_options
from cotbench.cli.terminal import echo, echo_error, echo_json
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.runs.resources import Resources


@with_options(TracesConfig, Resources, without=("show_admissible",))
def traces(
    typed: Typed,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Traces folder; with --from the .jsonl or .parquet file",
            show_default="a new one under runs/",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    resume: Resume = None,
    config: ConfigFile = None,
    import_: Import = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    debug: Debug = False,
    json_: Annotated[bool, typer.Option("--json", help="Print traces.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Let a teacher play in CoT mode, and keep its successful episodes as training data."""
    from cotbench.cli.config_file import with_config_file
    from cotbench.cli.options import model_of, only_given

    typed = with_config_file(typed, config)
    given = dict(typed[TracesConfig])
    measured = given.pop("decodability", None)
    if measured is not None:
        return _measure(measured, {**given, **only_given({"out": out, "resume": resume})}, json_)
    source, tokens, parquet = given.pop("source", None), given.pop("tokens", None), given.pop("parquet", False)
    if source is not None:
        return _convert(source, out, {**given, **only_given({"resume": resume})}, tokens)
    resources = model_of(Resources, typed[Resources])
    return _play(
        given,
        (out, resume),
        resources,
        import_ or [],
        tokens=tokens,
        parquet=parquet,
        trust=trust,
        dry=dry_run,
        debug=debug,
        json_=json_,
    )


def _play(
    given: dict[str, Any],
    where: tuple[Path | None, str | None],
    resources: Resources,
    imports: list[str],
    *,
    tokens: str | None,
    parquet: bool,
    trust: bool,
    dry: bool,
    debug: bool,
    json_: bool,
) -> int:
    from cotbench.agents.registry import resolve
    from cotbench.baselines.data.parquet import require_parquet
    from cotbench.baselines.data.token_rows import open_encoder
    from cotbench.baselines.data.traces import TRACES_FOLDER, write_traces
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.playing import play_run, print_plans, warn_of_samples
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.runs import runner
    from cotbench.runs.folder import make_folder, open_folder
    from cotbench.runs.plan import make_plan
    from cotbench.runs.tracker import require_trackers

    folder = resume_folder(where[1], where[0])
    config = _config(folder, given)
    if folder is not None:
        confirm(config.model_dump(mode="json"), folder, typed=given, trust=trust)
    build = resolve(config.agent, resources.agent_options())
    plan = make_plan(config, resources.data)
    if dry:
        print_plans([plan], json_)
        return 0
    warn_of_samples([config])
    plan.entry.require()
    require_trackers(resources.report_to)
    if parquet:
        require_parquet()
    encoder = None if tokens is None else open_encoder(tokens)
    target = folder or where[0] or runner.new_folder(config)
    again = resume_command("traces", target, imports, resources.data, config=config.model_dump(mode="json"))
    manifest = target / TRACES_FOLDER.manifest

    def check(target: Path) -> None:
        hint = f"resume with: {again}, or choose another --out" if manifest.is_file() else "choose another --out"
        make_folder(target, hint, "traces folder")

    try:
        # Locked before the model is loaded, which can take minutes: a second start is refused at once.
        with open_folder(target, TRACES_FOLDER, check if folder is None else None) as opened:
            with open_agent(config.agent, build) as player:
                outcome = play_run(plan, opened, json_, player, resources, debug=debug)
            summary = write_traces(outcome, parquet=parquet, encoder=encoder)
    except KeyboardInterrupt:
        return print_interrupted("played episodes are kept", again, manifest)
    return _print(outcome, summary, json_, again)


def _config(folder: Path | None, given: dict[str, Any]) -> Any:
    """Return the config of a run without scored tasks: from the options, or of the folder to resume.

    Raises:
        UsageError: a task of it is scored, or the folder is no traces folder.
    """
    from cotbench.baselines.data.scored_tasks import check_tasks
    from cotbench.cli.options import new_config
    from cotbench.cli.playing import recorded_configs
    from cotbench.envs.registry import env_entry
    from cotbench.errors import RunFolderError

    if folder is None:
        usual = {name: TracesConfig.model_fields[name].default for name in ("agent", "env", "split", "mode")}
        config = new_config(usual | given)
    else:
        configs = recorded_configs(folder, given)
        if len(configs) != 1 or configs[0].mode != "cot":
            raise RunFolderError(
                f"{folder} holds a run that is not on one environment in mode cot: resume with: cotbench run --resume {folder}"
            )
        config = configs[0]
    check_tasks(config.tasks or env_entry(config.env).source().tasks(config.scheme, config.split))
    return config


def _print(outcome: Any, summary: Any, as_json: bool, again: str) -> int:
    """Print the numbers; the exit code is 1 where episodes failed for a reason outside the teacher, or none was kept."""
    from cotbench.baselines.data.decodability import LEAST_TASKS
    from cotbench.baselines.data.demonstration import TRACES_JSONL
    from cotbench.baselines.data.token_rows import TOKENS_JSONL
    from cotbench.cli.playing import print_errors

    if as_json:
        echo_json(summary.model_dump_json(indent=2))
    else:
        echo(summary.text())
        echo(f"traces: {outcome.path / TRACES_JSONL}")
        if summary.tokens is not None:
            echo(f"tokens: {outcome.path / TOKENS_JSONL}, {summary.tokens.text()}")
        if summary.decodability is not None:
            echo("\n".join(summary.decodability.lines()))
        elif summary.kept:
            echo(f"decodability: not measured; it needs traces of at least {LEAST_TASKS} tasks")
    code = print_errors([outcome.records], again)
    if code == 0 and summary.kept == 0:
        echo_error(
            f"error: none of the {summary.episodes} episodes by {summary.teacher} was kept: use another --teacher, "
            "or more --episodes"
        )
        return 1
    return code


def _measure(source: Path, typed: dict[str, Any], as_json: bool) -> int:
    """Print the decodability of traces that are there already."""
    from cotbench.baselines.data.decodability import measure_decodability
    from cotbench.baselines.data.demonstration import read_demonstrations

    _check_alone("--decodability", typed)
    found = measure_decodability(read_demonstrations(source))
    if as_json:
        echo_json(found.model_dump_json(indent=2))
    else:
        echo("\n".join(found.lines()))
    return 0


def _check_alone(option: str, typed: dict[str, Any]) -> None:
    """Refuse options of a run beside one that plays nothing.

    Raises:
        UsageError: an option is given.
    """
    from cotbench.errors import UsageError
    from cotbench.flags import flag_of

    for name, value in typed.items():
        flag = flag_of(TracesConfig, next(iter(value)) if isinstance(value, dict) else name)
        raise UsageError(f"{option} plays nothing: omit {flag}")


def _convert(source: Path, out: Path | None, typed: dict[str, Any], tokens: str | None) -> int:
    """Write demonstrations in the other format, or as token ids and labels of a model."""
    from cotbench.baselines.data.demonstration import read_demonstrations, write_demonstrations
    from cotbench.baselines.data.scored_tasks import check_trainable
    from cotbench.errors import UsageError

    elicitation = typed.pop("elicitation", {}) if tokens is not None else {}
    _check_alone("--from", typed)
    if out is None:
        raise UsageError("--from needs --out FILE.jsonl or --out FILE.parquet")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    demonstrations = read_demonstrations(source)
    check_trainable(demonstrations)
    if tokens is not None:
        return _encode(demonstrations, out, elicitation, tokens)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_demonstrations(out, demonstrations)
    decisions = sum(len(one.actions) for one in demonstrations)
    echo(f"wrote {len(demonstrations)} demonstrations, {decisions} decisions: {out}")
    return 0


def _encode(demonstrations: list[Any], out: Path, elicitation: dict[str, Any], model: str) -> int:
    """Write the token ids and labels of demonstrations, asked for as they will be in evaluation."""
    from cotbench.baselines.data.examples import elicitations_of
    from cotbench.baselines.data.parquet import check_suffix
    from cotbench.baselines.data.token_rows import open_encoder, write_tokens
    from cotbench.baselines.data.traces import tokens_summary

    check_suffix(out)
    examples = open_encoder(model).encode(demonstrations, elicitations_of(demonstrations, elicitation))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tokens(out, examples.flat)
    echo(f"wrote {tokens_summary(model, examples).text()}: {out}")
    return 0
