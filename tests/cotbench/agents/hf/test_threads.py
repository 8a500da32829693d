"""Threads of torch: one for the bundled models, and threads that sleep while they wait, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cotbench.agents.hf.agent import HFAgent
from tests import tiny_models

torch = pytest.importorskip("torch")

_PROBE = """
import os, sys
import cotbench, cotbench.cli, cotbench.agents.hf.agent
assert "torch" not in sys.modules and os.environ.get("OMP_WAIT_POLICY") == {before!r}, os.environ.get("OMP_WAIT_POLICY")
from {module} import {check}
{check}()
assert "torch" not in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["tiny", "tiny-cot"])
def test_a_bundled_model_takes_one_thread_and_gives_the_others_back(name, two_threads):
    agent = HFAgent(name, device="cpu")
    assert (agent.describe()["torch_threads"], torch.get_num_threads()) == (1, 1)
    agent.close()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(3)
    agent.close()
    assert torch.get_num_threads() == 3


def test_a_number_of_threads_that_was_given_stands(two_threads):
    agent = HFAgent("tiny", device="cpu", threads=2)
    assert agent.describe()["torch_threads"] == torch.get_num_threads() == 2
    agent.close()
    assert torch.get_num_threads() == 2


def test_a_model_of_the_users_has_torchs_own_choice(two_threads, tmp_path):
    tiny_models.save_model(tmp_path / "model", "llama", tiny_models.TEMPLATES["chatml"])
    agent = HFAgent(str(tmp_path / "model"), device="cpu")
    assert agent.describe()["torch_threads"] == torch.get_num_threads() == 2
    agent.close()


@pytest.mark.parametrize(
    ("module", "check"),
    [
        ("cotbench.agents.hf.pretrained", "require_transformers"),
        ("cotbench.baselines.recipes.require", "require_training"),
    ],
)
@pytest.mark.parametrize(
    ("chosen", "policy"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "10000"}, None),
        ({"KMP_BLOCKTIME": "1"}, None),
    ],
)
def test_threads_wait_passively_from_the_first_use_of_torch_on_unless_the_user_has_chosen(module, check, chosen, policy):
    unset = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | chosen
    code = _PROBE.format(module=module, check=check, before=chosen.get("OMP_WAIT_POLICY"))
    ended = subprocess.run([sys.executable, "-P", "-c", code], check=False, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, str(policy)), ended.stderr
