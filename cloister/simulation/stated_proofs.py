"""Proves a simulated study's gradients or finds kept proofs; writes them to the run's folder."""

from __future__ import annotations

import json

from cloister.files import bad_file, write_whole
from cloister.server.run_directory import RunDirectory
from cloister.simulation.study import SimulatedStudy
from cloister.training.kept_proofs import KnownProof, known_or_proven
from cloister.training.machine import on_machine
from cloister.training.workspace import Workspace

PROOF = "proof.json"


def prove_gradients(
    simulated: SimulatedStudy, workspace: Workspace, run: RunDirectory
) -> list[KnownProof]:
    """Returns a proof for each different plan of the sites, and writes them to `proof.json`.

    Args:
        simulated: The study; it is private.
        workspace: Its base and network, at their start.
        run: The run's folder.

    Raises:
        PreflightError: A check failed.
        BadFileError: The file cannot be written.
    """
    found = proofs_of(simulated, workspace)
    content = json.dumps([one.to_json() for one in found], indent=2)
    try:
        write_whole(run.path / PROOF, content.encode())
    except OSError as error:
        raise bad_file(error, "written") from error
    return found


def proofs_of(simulated: SimulatedStudy, workspace: Workspace) -> list[KnownProof]:
    """Returns a proof for each different plan of the sites, which this process then knows.

    Raises:
        PreflightError: A check failed.
    """
    training = on_machine(simulated.recipe.training, simulated.recipe.machine)
    found: dict[str, KnownProof] = {}
    for plan in simulated.plans.values():
        one = known_or_proven(workspace, plan, training)
        found.setdefault(one.proof.key, one)
    return list(found.values())
