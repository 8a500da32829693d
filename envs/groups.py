"""Groups of environments, over which a board takes a mean. Invariant: an environment's entry says which groups it belongs to; a
name stands either for an environment or for a group.
"""

from __future__ import annotations

from cotbench.envs.registry import env_entries, env_entry


def overall_groups() -> dict[str, tuple[str, ...]]:
    """Return the boards over several environments: name -> the environments behind it, in the order of the registry."""
    groups: dict[str, list[str]] = {}
    for entry in env_entries():
        for group in entry.overall:
            groups.setdefault(group, []).append(entry.name)
    return {group: tuple(names) for group, names in sorted(groups.items())}


def env_title(name: str) -> str:
    """Return the title of an environment, or of the environments of an overall board.

    Args:
        name: of an environment, or of a group of `overall_groups`.
    """
    group = overall_groups().get(name)
    if group is None:
        return env_entry(name).title
    titles = [env_entry(one).title for one in group]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
