"""Bodies for schemathesis, which loads this file: bundles, bundles with damage, and anything. The bundles lie in the folder
that the environment names.
"""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

FOLDER = "COTBENCH_TEST_BUNDLES"
_BUNDLES = [path.read_bytes() for path in sorted(Path(os.environ[FOLDER]).glob("*.zip"))]


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A bundle with one byte changed, or cut."""
    data = bytearray(draw(st.sampled_from(_BUNDLES)))
    place = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        return bytes(data[:place])
    data[place] ^= draw(st.integers(1, 255))
    return bytes(data)


schemathesis.openapi.media_type("application/zip", st.one_of(st.sampled_from(_BUNDLES), _damaged(), st.binary(max_size=1000)))
