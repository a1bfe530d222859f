"""Proves a study's gradients before `ready`, and keeps proofs and measured times.

A study that passes the policy can still be unsound: adapters on modules that the batch shares give
per-record gradients whose clipping bounds nothing (DeBERTa's relative positions: one unit's
influence was twice the bound). So each site proves the gradients on its own machine. The result is
kept in the agent's folder, under a hash of everything that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from cloister.adapter.wire import encode
from cloister.client.admission import Admitted
from cloister.client.measured_times import Times, measured_times
from cloister.files import write_whole
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.tasks.cut import most_characters, most_turns
from cloister.training.config import TrainingConfig
from cloister.training.proof import Proof, prove
from cloister.training.proof_key import version
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

T = TypeVar("T")

# Most entries that are kept, two per study: a coordinator that proposes endless studies must not
# fill the disk.
KEPT = 64


@dataclass(frozen=True)
class KeptProofs:
    """Proofs and measured times of studies, kept in a file under a hash of what they depend on.

    Attributes:
        path: The file; made if it is missing, overwritten if it cannot be read.
    """

    path: Path

    def isolation(
        self, workspace: Workspace, plan: Plan, training: TrainingConfig, limit: float
    ) -> Proof:
        """Proves that no record changes another's gradient here; see `training.proof.prove`.

        Raises:
            PreflightError: A check failed; the message names it.
        """
        key = Proof.key_of(workspace, plan, training, max_adapter_value=limit)
        return self._kept(
            key,
            lambda: prove(workspace, plan, training, max_adapter_value=limit),
            Proof.to_json,
            lambda fields: _of_key(Proof.from_json(fields), key),
        )

    def times(self, admitted: Admitted, recipe: Recipe) -> Times:
        """Measures the time of a training step and of encoding an update.

        Raises:
            PreflightError: A step on synthetic records fails.
        """
        return self._kept(
            _key(admitted, recipe),
            lambda: measured_times(admitted, recipe.task.max_length),
            asdict,
            lambda fields: Times(**fields),
        )

    def _kept(
        self,
        key: str,
        make: Callable[[], T],
        to_json: Callable[[T], dict[str, Any]],
        from_json: Callable[[Mapping[str, Any]], T],
    ) -> T:
        known = self._read()
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            return from_json(known[key])
        found = make()
        document = dict(list({**known, key: to_json(found)}.items())[-KEPT:])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(document, indent=2).encode(), mode=0o600)
        except OSError as error:  # a full disk, for example: it is proven again next time
            log.warning("a proof could not be kept: %s", error.strerror)
        return found

    def _read(self) -> dict[str, Any]:
        """Earlier proofs; a file that cannot be read counts as empty and is overwritten."""
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _of_key(proof: Proof, key: str) -> Proof:
    """Returns a kept proof if it belongs to the key under which it is stored.

    Raises:
        ValueError: It belongs to another key.
    """
    if proof.key != key:
        raise ValueError(f"a proof of {proof.key[:12]} in the place of {key[:12]}")
    return proof


def _key(admitted: Admitted, recipe: Recipe) -> str:
    """A hash of all that times depend on."""
    workspace, site, plan = admitted.workspace, admitted.site, admitted.plan
    about = {
        "isolation": Proof.key_of(
            workspace, plan, site.training, max_adapter_value=site.policy.accept.max_adapter_value
        ),
        "versions": {name: version(name) for name in ("cloister", "tokenizers")},
        "start": hashlib.sha256(encode(workspace.whole)).hexdigest(),
        "task": asdict(recipe.task),
        "largest": [most_characters(recipe.task.max_length), most_turns(recipe.task.max_length)],
        "training": asdict(site.training),
        **({"processes": workspace.team.processes} if workspace.team is not None else {}),
        "shapes": admitted.shapes.to_json() if admitted.shapes else None,
        "plan": [plan.public_records, plan.expected_batch_size, plan.max_records, plan.unit],
        # Of a record alone, the time is that of one that fails.
        **({"evaluates": "failing"} if plan.evaluations is not None else {}),
        **({"votes": [plan.votes, "failing"]} if plan.votes is not None else {}),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
