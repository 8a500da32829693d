"""Measurements on states and checkpoints (paper: alignment, consistency, conflicting traces, attention and gradient shares).
Begin with `probe` (the type `Probe`, and the registry) and `states` (the states that are measured); each probe has a file of
its name, `folder` writes and reads a probe's folder.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.probes.folder import ProbeResult, read_probe, run_probe
    from cotbench.probes.numbers import ProbeNumbers, ProbeRow
    from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting, probe_named, probe_names, register_probe
    from cotbench.probes.states import ProbeState, StateSet, read_states

_HOMES = {
    "Probe": "probe",
    "ProbeNumbers": "numbers",
    "ProbeOptions": "probe",
    "ProbeResult": "folder",
    "ProbeRow": "numbers",
    "ProbeSetting": "probe",
    "ProbeState": "states",
    "StateSet": "states",
    "probe_named": "probe",
    "probe_names": "probe",
    "read_probe": "folder",
    "read_states": "states",
    "register_probe": "probe",
    "run_probe": "folder",
}

__all__ = [
    "Probe",
    "ProbeNumbers",
    "ProbeOptions",
    "ProbeResult",
    "ProbeRow",
    "ProbeSetting",
    "ProbeState",
    "StateSet",
    "probe_named",
    "probe_names",
    "read_probe",
    "read_states",
    "register_probe",
    "run_probe",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
