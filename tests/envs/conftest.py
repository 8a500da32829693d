"""What the tests of the environments share."""

from collections.abc import Iterator

import pytest

from tests.envs.scienceworld import simulators


@pytest.fixture(scope="module", autouse=True)
def _no_simulator_outlives_its_file() -> Iterator[None]:
    with simulators.closed_at_the_end():
        yield
