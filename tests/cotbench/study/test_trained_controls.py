"""Control arms trained for real, in a world small enough for a model of some thousand weights: recipe, masks, agent and probes
as a study uses them, in the order that their construction demands.

The world: a room with coloured things and one numbered tool. The colour of the wanted thing decides the verb, the number stands
in the prompt alone. A trace of level `full` spells the action; `state` says the colour that was found, and not the number.
"""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = [needs_hf, pytest.mark.slow]

from cotbench.agents import make_agent
from cotbench.baselines.data.demonstration import Demonstration, write_jsonl
from cotbench.baselines.recipes.sft import SFTConfig, train
from cotbench.baselines.tiny.tokenizer import make_tokenizer
from cotbench.envs import Instructions
from cotbench.probes.states import ProbeState
from cotbench.prompting.elicitation import Elicitation
from cotbench.study.report_instrument import InstrumentCheck, instrument_checks
from tests.cotbench.study.test_report_instrument import ROLES, study_of
from tests.probing import measured, setting

THINGS = ("mug", "plate", "cup", "fork", "knife", "bowl")
VERBS = {"red": "heat", "blue": "cool", "green": "clean", "black": "hide"}
ASKED = Elicitation(trace_tokens=24, action_tokens=8)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "spelled": ("full", {}),
    "sft": ("state", {}),
    "mixed": ("state", {"traces": "shuffled"}),
    "dots": ("state", {"traces": "filler"}),
    "bare": ("state", {"traces": "none"}),
}


def played(number: int, level: str) -> Demonstration:
    drawing = random.Random(number)
    things = drawing.sample(THINGS, 3)
    colours = drawing.sample(sorted(VERBS), 3)
    tool = drawing.randrange(1, 9)
    seen = ", ".join(f"a {colour} {thing}" for colour, thing in zip(colours, things, strict=True))
    action = f"{VERBS[colours[0]]} {things[0]} with tool {tool}"
    order = drawing.sample(seen.split(", "), 3)
    trace = f"I want the {things[0]}. The {things[0]} is {colours[0]}."
    return Demonstration(
        task=f"t/{number}",
        instructions=Instructions("You act."),
        observations=(f"You see {', '.join(order)} and tool {tool}. Find the {things[0]}.",),
        actions=(action,),
        traces=(trace if level == "state" else f"{trace} I {action}.",),
    )


def save_random(folder: Path, some: list[Demonstration]) -> None:
    """A model that knows nothing, and a tokenizer of the world's words."""
    import torch
    import transformers

    texts = [text for one in some for text in (*one.observations, *one.actions, one.traces[0] or "")]
    words = make_tokenizer([*texts, *texts], [ASKED.system_text(some[0].dialogue(0), "cot")])
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=256,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=True,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)


def trained_checks(folder: Path, games: int = 3000, epochs: float = 4, count: int = 80) -> list[InstrumentCheck]:
    """Trains every arm, measures it on other tasks, and returns the checks."""
    elicited = {"trace_tokens": ASKED.trace_tokens, "action_tokens": ASKED.action_tokens}
    for level in ("full", "state"):
        write_jsonl(folder / f"{level}.jsonl", [played(number, level) for number in range(games)])
    save_random(folder / "base", [played(number, "full") for number in range(games)])
    held_out = [played(10**6 + number, "state") for number in range(count)]
    some = [ProbeState(one.task, "", 0, "", one.dialogue(0), one.actions[0], None) for one in held_out]
    rows = {}
    for arm, (level, options) in ARMS.items():
        started = time.process_time()
        config = SFTConfig(
            model=str(folder / "base"),
            data=(str(folder / f"{level}.jsonl"),),
            epochs=epochs,
            learning_rate=3e-3,
            batch_size=32,
            checkpoints=(1.0,),
            device="cpu",
            threads=1,
            elicitation=elicited,
            match_compute=True,
            **options,
        )
        agent = make_agent(f"hf:{train(config, folder / arm).folder}?threads=1&device=cpu")
        for probe in ("alignment", "conflict"):
            rows[arm, probe] = measured(probe, agent, some, setting(some, elicitation=ASKED))
        agent.close()
        print(arm, f"{time.process_time() - started:.0f} s", flush=True)
    return instrument_checks(study_of(lambda arm, probe: rows[arm if arm in ARMS else "sft", probe]), "id")


def test_trained_control_arms_come_out_in_order(tmp_path: Path) -> None:
    checks = trained_checks(tmp_path)
    for check in checks:
        print(check.quantity, check.higher, check.lower, check.difference.mean, check.difference.low, check.verdict)
    verdicts = {(check.quantity, check.higher, check.lower): check.verdict for check in checks}
    assert "reversed" not in verdicts.values()
    for lower in (arm for arm in ROLES.values() if arm != "spelled"):
        assert verdicts.get(("following", "spelled", lower), "as constructed") == "as constructed"
    assert verdicts["gap", "spelled", "mixed"] == verdicts["gap", "spelled", "dots"] == "as constructed"
