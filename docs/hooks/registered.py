"""Tables of what is registered: splits, agents, probes, recipes. Invariant: each row comes from a registry."""

from __future__ import annotations

from collections.abc import Callable


def splits(env: str) -> str:
    """Return the splits of an environment with their sizes.

    Args:
        env: the environment's name.
    """
    from cotbench.envs.registry import env_entry
    from cotbench.envs.tasks import first_tasks

    source = env_entry(env).source()
    rows = []
    for scheme, names in source.schemes().items():
        for split in names:
            tasks, first = source.tasks(scheme, split), first_tasks(source, scheme, split)
            played = "all" if len(first) == len(tasks) else f"the first {len(first):,}"
            domain = "out of domain" if source.out_of_domain(scheme, split) else ""
            rows.append(f"| `{scheme}` | `{split}` | {len(tasks):,} | {played} | {domain} | `{tasks[0]}` |")
    return "\n".join(
        ("| scheme | split | tasks | played unless told otherwise | | a task id |", "|---|---|---:|---|---|---|", *rows)
    )


def agents() -> str:
    """Return the agents that `--agent` accepts."""
    from cotbench.agents.registry import agent_names, builtin_summaries, summary_of

    known = builtin_summaries()
    named = {spec.partition(":")[0] for spec in known}
    more = {name: summary_of(name) for name in agent_names() if name not in named}
    rows = [f"| `{name}` | {about.strip()} |" for name, about in {**known, **more}.items()]
    return "\n".join(("| agent | what it is |", "|---|---|", *rows))


def aliases() -> str:
    """Return the short names of models."""
    from cotbench.agents.hf.loading import ALIASES

    return "\n".join(("| alias | model |", "|---|---|", *(f"| `hf:{alias}` | `{name}` |" for alias, name in ALIASES.items())))


def probes() -> str:
    """Return the probes."""
    from cotbench.probes.probe import probe_named, probe_names

    rows = [f"| `{name}` | {probe_named(name).description} |" for name in probe_names()]
    return "\n".join(("| probe | what it measures |", "|---|---|", *rows))


def recipes() -> str:
    """Return the recipes."""
    from cotbench.recipes import recipe_named, recipe_names

    rows = [f"| `{name}` | {recipe_named(name).description} |" for name in recipe_names()]
    return "\n".join(("| recipe | what it does |", "|---|---|", *rows))


def wheels() -> str:
    """Return the pinned wheels that are read as data."""
    from cotbench.envs.wheels import WHEELS

    rows = [f"| `{one.filename}` | {one.purpose} | {one.license} | `{one.sha256[:16]}...` |" for one in WHEELS.values()]
    return "\n".join(("| wheel | what for | licence | sha256 |", "|---|---|---|---|", *rows))


TABLES: dict[str, Callable[..., str]] = {
    "splits": splits,
    "agents": agents,
    "aliases": aliases,
    "probes": probes,
    "recipes": recipes,
    "wheels": wheels,
}
