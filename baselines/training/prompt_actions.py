"""The base model's greedy prompt action at each state of the training data. Invariant: it is the action that the agent of
evaluation gives there: the same prompt, engine, budget and reading; it is compared in the environment's own spelling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from cotbench.agents.decisions import decide_all
from cotbench.agents.hf.agent import HFAgent
from cotbench.baselines.data.admissible import admissible_of
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Examples, example_id
from cotbench.baselines.training.masks import Score
from cotbench.baselines.training.model import TrainableModel
from cotbench.envs.registry import env_entry
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query

_EPISODES = 64
"""Demonstrations that are queried in one call: their prompts' caches are what memory is needed for."""


@dataclass(frozen=True, slots=True)
class _Case:
    """Query at one state of the data, and the action that is trained there."""

    id: str
    query: Query
    action: str


def prompt_matches(
    trainable: TrainableModel,
    demonstrations: Sequence[Demonstration],
    examples: Examples,
    elicitations: Mapping[str, Elicitation],
) -> dict[str, Score]:
    """Return example id -> a score that says whether the model's greedy prompt action is the example's action.

    Args:
        trainable: the model before the training; afterwards it is as before, with the attention of the training.
        demonstrations: what the examples are made of.
        examples: the examples.
        elicitations: environment -> the elicitation that evaluation will use; sampled temperatures are taken as 0.

    Raises:
        AgentError: a query failed.
    """
    model = trainable.model.get_base_model() if hasattr(trainable.model, "get_base_model") else trainable.model
    training_attention = model.config._attn_implementation
    model.set_attn_implementation(trainable.own_attention)
    agent = HFAgent.from_model(model, trainable.tokenizer, name="hf:base")
    episodes = [one for one in _queries(demonstrations, {example.id for example in examples.flat}, elicitations) if one]
    found: dict[str, Score] = {}
    try:
        for start in range(0, len(episodes), _EPISODES):
            found |= _answered(agent, [case for episode in episodes[start : start + _EPISODES] for case in episode])
    finally:
        agent.close()
        model.set_attn_implementation(training_attention)
    return found


def _queries(
    demonstrations: Sequence[Demonstration], wanted: Set[str], elicitations: Mapping[str, Elicitation]
) -> Iterator[list[_Case]]:
    """Yield the cases of each demonstration."""
    takes: Counter[str] = Counter()
    needing = [one for one in demonstrations if elicitations[one.env].needs_admissible]
    lists = dict(zip(map(id, needing), admissible_of(needing), strict=True))
    for one in demonstrations:
        listed = lists.get(id(one))
        take, takes[one.task] = takes[one.task], takes[one.task] + 1
        greedy = elicitations[one.env].model_copy(update={"temperature": 0.0})
        yield [
            _Case(
                id_,
                Query(
                    episode=f"{one.task}@{take}",
                    env=one.env,
                    task=one.task,
                    step=step,
                    mode="prompt",
                    dialogue=one.dialogue(step),
                    elicitation=greedy,
                    admissible_actions=listed[step] if listed else None,
                ),
                action,
            )
            for step, action in enumerate(one.actions)
            if (id_ := example_id(one.task, step, take)) in wanted
        ]


def _answered(agent: HFAgent, cases: Sequence[_Case]) -> dict[str, Score]:
    found = {}
    spellings = {env: env_entry(env).canonical() if env else str.strip for env in {case.query.env for case in cases}}
    for case, decision in zip(cases, decide_all(agent, [case.query for case in cases]), strict=True):
        if decision.error is not None:
            raise AgentError(f"mask_select=confident: the base model gave no prompt action for {case.id} ({decision.error})")
        spelled = spellings[case.query.env]
        found[case.id] = Score(matches=spelled(decision.action) == spelled(case.action))
    return found
