"""How many steps an action leaves to go. Invariant: it is asked only where the recorded actions, executed again, gave the
recorded texts, and of a copy of the environment; where something is not known nothing is returned, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import CotbenchError

Place = tuple[int, int]
"""Number of a demonstration, and a step of it."""


def knows_steps(env: str) -> bool:
    """Tell whether an environment has an expert that takes over anywhere and finishes (`TextEnv.remaining_steps`).

    Args:
        env: name of the environment.
    """
    from cotbench.envs.base import TextEnv
    from cotbench.envs.registry import env_entry

    return env_entry(env).loaded_class().remaining_steps is not TextEnv.remaining_steps


def steps_to_go(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]]) -> dict[Place, dict[str, int]]:
    """Return how many steps each action leaves to go: an expert that knows the whole task takes over after it and finishes.

    Args:
        demonstrations: played episodes of one environment, each of another task.
        actions: the actions at their states; an action in any spelling.

    Returns:
        For each place its actions, where the number is known.
    """
    from cotbench.probes.probe import ProbeSetting
    from cotbench.probes.replay import replayed
    from cotbench.probes.states import ProbeState, StateSet
    from cotbench.prompting.elicitation import Elicitation

    found: dict[Place, dict[str, int]] = {place: {} for place in actions}
    if not actions or not knows_steps(demonstrations[0].env):
        return found
    numbers = {one.task: number for number, one in enumerate(demonstrations)}
    states = tuple(
        ProbeState(one.task, "", step, "", one.dialogue(step), one.actions[step], None)
        for one, step in ((demonstrations[number], step) for number, step in sorted(actions))
    )
    whole = StateSet(demonstrations[0].env, "paper", "train", "", 0, len(demonstrations), states)
    try:
        for state, env in replayed(ProbeSetting(whole, Elicitation(), str), states):
            if isinstance(env, str):
                continue
            place = numbers[state.task], state.step
            for action in dict.fromkeys(actions[place]):
                steps = env.remaining_steps(action)
                if steps is not None:
                    found[place][action] = steps
    except CotbenchError:  # The environment cannot be made, or is lost: what is known by now is right.
        return found
    return found
