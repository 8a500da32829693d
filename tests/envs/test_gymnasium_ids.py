"""The ids in Gymnasium: known whichever of the two packages is imported first, in fresh processes."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium; env = gymnasium.make('cotbench:cotbench/ALFWorldGen-v0', split='ood')",
        "import cotbench, gymnasium; env = gymnasium.make('cotbench:cotbench/ALFWorldGen-v0', split='ood')",
        "import cotbench.envs, gymnasium; env = gymnasium.make('cotbench/ALFWorldGen-v0', split='ood')",
        "import gymnasium, cotbench; env = gymnasium.make('cotbench/ALFWorldGen-v0', split='ood')",
    ],
)
def test_whichever_is_imported_first(code: str) -> None:
    check = "\nassert env.reset(seed=0)[1]['task'].startswith('alfworld/gen/')\n"
    done = subprocess.run([sys.executable, "-P", "-c", code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_watching_for_gymnasium_leaves_it_as_it_is() -> None:
    code = (
        "import sys, cotbench\n"
        "assert 'gymnasium' not in sys.modules and 'numpy' not in sys.modules\n"
        "import gymnasium\n"
        "assert type(gymnasium.__spec__.loader).__name__ == 'SourceFileLoader', gymnasium.__spec__.loader\n"
        "assert type(gymnasium.__loader__).__name__ == 'SourceFileLoader'\n"
        "assert not any('cotbench' in type(finder).__module__ for finder in sys.meta_path)\n"
        "assert 'cotbench/BFCL-v0' in gymnasium.registry\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_query_costs_neither_gymnasium_nor_numpy() -> None:
    code = "import sys, cotbench.prompting.query; assert not {'gymnasium', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
