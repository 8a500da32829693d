"""The model engine beside the loop that peers run, on SmolLM2 and dialogues of generated games.

    pytest -s tests/benchmarks/bench_engine.py

The peers' loop is written out here (`_peer_turn`): transformers' `generate`, the whole history prefilled at every turn and for
each mode, one query at a time, with the same tags opened and the same budgets. Tasks and actions are fixed, so that all see
the same prompts. Ratios of medians of `ROUNDS` rounds, which are played in turn; every figure is printed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cotbench.agents import make_agent
from cotbench.agents.tokenization.token_ids import common_prefix
from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Decision, Query
from tests.conftest import needs_hf

pytestmark = needs_hf

TURNS, BATCH_TURNS, ROUNDS, THREADS = 30, 3, 5, 1
ASKED = Elicitation(trace_tokens=64, action_tokens=32)
MODES: tuple[Mode, Mode] = ("cot", "prompt")


def _dialogues(task: str, turns: int) -> list[Dialogue]:
    """The states of a game played with random admissible actions."""
    entry = env_entry("alfworld-gen")
    env = entry.make(request=["admissible_actions"])
    chance = random.Random(task)
    observation, info = env.reset(options={"task": task})
    states = [Dialogue(entry.instructions(), (observation,))]
    while len(states) < turns:
        action = chance.choice(info["admissible_actions"])
        observation, _, terminated, truncated, info = env.step(action)
        assert not (terminated or truncated), "choose another task"
        states.append(states[-1].extended(action, None, observation))
    env.close()
    return states


def _query(state: Dialogue, mode: Mode, episode: str = "e", asked: Elicitation = ASKED) -> Query:
    return Query(episode, "", "t", len(state.actions), mode, state, asked)


@pytest.fixture(scope="module")
def agent() -> Any:
    made = make_agent(f"hf:smollm2?device=cpu&threads={THREADS}")
    made.decide([_query(_dialogues("alfworld/gen/cool/17", 1)[0], "prompt", "warm-up")])
    return made


@pytest.fixture(scope="module")
def peer() -> Any:
    """The same weights with transformers' own attention."""
    import transformers

    from cotbench.agents.hf.bundled import smollm2_folder

    return transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype="float32").eval()


def _engine_episode(
    agent: Any, states: Sequence[Dialogue], modes: Sequence[Mode], asked: Elicitation = ASKED
) -> list[Decision]:
    agent._engine.close()
    return [decision for state in states for decision in agent.decide([_query(state, mode, "e", asked) for mode in modes])]


def _peer_turn(peer: Any, agent: Any, state: Dialogue, mode: Mode) -> str:
    """One answer of a plain loop; within the turn it keeps its cache, from turn to turn it does not."""
    import torch
    from transformers import DynamicCache

    chat, tokenizer = agent._chat, agent._chat._tokenizer
    cache = DynamicCache(config=peer.config)

    def written(ids: list[int], budget: int, stops: list[str]) -> str:
        out = peer.generate(
            torch.tensor([ids]),
            past_key_values=cache,
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=budget,
            do_sample=False,
            stop_strings=stops,
            tokenizer=tokenizer,
            pad_token_id=tokenizer.eos_token_id,
        )
        seen[:] = out[0].tolist()[:-1]
        text = chat.decode([token for token in out[0, len(ids) :].tolist() if token not in agent._end_ids])
        return str(text[: min([place for stop in stops if (place := text.find(stop)) >= 0], default=len(text))])

    seen: list[int] = []
    ids = chat.prompt_ids(ASKED.messages(state, mode))
    raw = ""
    if mode == "cot":
        ids = ids + chat.encode(THINK_OPEN)
        trace = written(ids, ASKED.trace_tokens, [THINK_CLOSE, ACTION_OPEN])
        ids = ids + chat.encode(trace) + chat.encode(f"{THINK_CLOSE}\n")
        raw = f"{THINK_OPEN}{trace}{THINK_CLOSE}\n"
        kept = common_prefix(seen, ids)  # What the tags do not change stays.
        cache.crop(kept - cache.get_seq_length())
    return f"{raw}{ACTION_OPEN}{written(ids + chat.encode(ACTION_OPEN), ASKED.action_tokens, [ACTION_CLOSE])}"


def _timed(play: Callable[[], object]) -> float:
    begun = time.perf_counter()
    play()
    return time.perf_counter() - begun


def _medians(named: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds, round by round in turn, so that a slow minute of the machine is everybody's."""
    times: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, play in named.items():
            times[name].append(_timed(play))
            print(f"  {name}: {times[name][-1]:.1f} s", flush=True)
    for name, some in times.items():
        print(f"  {name:<28} median {statistics.median(some):7.2f} s   " + " ".join(f"{one:.2f}" for one in some))
    return {name: statistics.median(some) for name, some in times.items()}


def test_both_modes_against_one_and_against_the_peers_loop(agent: Any, peer: Any) -> None:
    import torch

    torch.set_num_threads(THREADS)
    states = _dialogues("alfworld/gen/cool/17", TURNS)
    print(f"\nepisode of {TURNS} turns, SmolLM2, trace budget {ASKED.trace_tokens}, {THREADS} threads:")
    ours: list[Decision] = []
    theirs: list[str] = []

    def both() -> None:
        ours[:] = _engine_episode(agent, states, MODES)

    def peers() -> None:
        theirs[:] = [_peer_turn(peer, agent, state, mode) for state in states for mode in MODES]

    named = {"CoT": lambda: _engine_episode(agent, states, ["cot"]), "CoT and prompt": both, "the loop of peers, both": peers}
    medians = _medians(named, ROUNDS)
    print(f"  prompt action added: {medians['CoT and prompt'] / medians['CoT']:.3f} x the CoT episode alone")
    print(f"  the loop of peers: {medians['the loop of peers, both'] / medians['CoT and prompt']:.2f} x ours")
    # The loop of peers knows no end of a line, so its actions may go on.
    same = sum(other.startswith(one.raw.removesuffix(ACTION_CLOSE)) for one, other in zip(ours, theirs, strict=True))
    print(f"  the same answers: {same} of {len(ours)}")


def test_prefilled_tokens_grow_linearly(agent: Any) -> None:
    print("\ntokens prefilled in an episode of T turns, both modes (peers: the sum of all prompts):")
    states = _dialogues("alfworld/gen/cool/17", 40)
    for turns in (10, 20, 40):
        decisions = _engine_episode(agent, states[:turns], MODES, Elicitation(trace_tokens=4, action_tokens=4))
        prompts = sum(decision.prompt_tokens for decision in decisions)
        print(
            f"  T={turns}: {sum(decision.prefilled_tokens for decision in decisions)}, last prompt "
            f"{decisions[-1].prompt_tokens}, peers {prompts}"
        )


def test_a_batch_of_episodes(agent: Any) -> None:
    tasks = [f"alfworld/gen/{kind}/{number}" for kind in ("cool", "heat", "clean", "two") for number in (17, 18)]
    episodes = [_dialogues(task, BATCH_TURNS) for task in tasks]

    def one_by_one() -> None:
        for name, states in enumerate(episodes):
            for state in states:
                agent.decide([_query(state, mode, str(name)) for mode in MODES])

    def together() -> None:
        for turn in range(BATCH_TURNS):
            agent.decide([_query(states[turn], mode, str(name)) for name, states in enumerate(episodes) for mode in MODES])

    def cold(play: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            agent._engine.close()
            play()

        return run

    print(f"\n8 episodes of {BATCH_TURNS} turns, both modes, {THREADS} threads:")
    answers = 2 * BATCH_TURNS * len(episodes)
    medians = _medians({"batch 1": cold(one_by_one), "batch 8": cold(together)}, ROUNDS)
    print(
        f"  decisions a second: {answers / medians['batch 1']:.2f} and {answers / medians['batch 8']:.2f}, ratio "
        f"{medians['batch 1'] / medians['batch 8']:.2f}"
    )
