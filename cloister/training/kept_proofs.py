"""Keeps the proofs of simulations in the user's cache, where nothing they depend on has changed.

A proof is the same every time on the same machine (`training.proof_key` names all that it depends
on), and takes about a third of a short study. So `cloister simulate` keeps it: one file per key,
readable by its owner only. A site of a deployment proves for itself and does not read this folder:
there a wrong proof is a leak of real records.

An entry is used only if it is the file of this user alone, is a whole proof of exactly this key,
and its shapes are among those that a proof would try now. Every other entry is ignored and replaced
by a new proof. `CLOISTER_KEPT_PROOFS=0` proves each time and keeps nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from cloister.bounds import shortened
from cloister.errors import UsageError
from cloister.files import open_file, write_whole
from cloister.json_text import read_json
from cloister.models.network import Network
from cloister.owner_only import FILE, cache_folder, private_folder
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.proof import DATED, MAX_ADAPTER_VALUE, Proof, proven
from cloister.training.proof_key import shapes_to_try
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

VARIABLE = "CLOISTER_KEPT_PROOFS"
# Most entries that are kept; the oldest are removed. A proof of the quickstart has 4 kB.
KEPT = 64
# Most bytes and values of an entry: 64 lengths of 28 row counts have 1,800 times of 3 values.
MOST_BYTES, MOST_VALUES = 2**18, 20_000
# Where the modules of a network come from whose versions and code are part of a key.
_KNOWN = frozenset({"cloister", "torch", "transformers", "peft"})
_NAME = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True)
class KnownProof:
    """A proof for a study on this machine.

    Attributes:
        proof: The proof.
        is_kept: Whether it was kept from an earlier run.
    """

    proof: Proof
    is_kept: bool

    def __str__(self) -> str:
        if self.is_kept:
            return f"per-record gradients: proved on {self.proof.proved} UTC on this machine, kept"
        return "per-record gradients: proved on this machine"

    def to_json(self) -> dict[str, Any]:
        """Returns what a run's folder keeps of it."""
        return {**self.proof.to_json(), "kept": self.is_kept}


_found: dict[str, KnownProof] = {}


def known_or_proven(
    workspace: Workspace,
    plan: Plan,
    config: TrainingConfig,
    *,
    max_adapter_value: float = MAX_ADAPTER_VALUE,
) -> KnownProof:
    """Returns the kept proof of a simulated study, else proves it and keeps the proof; once for a
    process.

    Raises:
        PreflightError: A check failed; nothing is kept.
        UsageError: The environment's CLOISTER_KEPT_PROOFS is neither 0 nor 1.
    """
    key = Proof.key_of(workspace, plan, config, max_adapter_value=max_adapter_value)
    if key in _found:
        return _found[key]
    folder = folder_for(workspace)
    kept = None if folder is None else folder.read(key, shapes_to_try(workspace, config))
    if kept is not None:
        return _found.setdefault(key, KnownProof(kept, True))
    proof = proven(workspace, plan, config, max_adapter_value=max_adapter_value)
    if folder is not None:
        folder.write(proof)
    return _found.setdefault(key, KnownProof(proof, False))


def folder_for(workspace: Workspace) -> ProofFolder | None:
    """Returns the folder in which a study's proof is kept; None: it is proved each time.

    It is None for code whose changes a key may miss: that of a plug-in, or of a package that the
    key does not name.
    """
    wanted = os.environ.get(VARIABLE, "1")
    if wanted not in ("0", "1"):
        raise UsageError(
            f"{VARIABLE}: {shortened(wanted)} given in the environment; 0 (prove in each run) or 1 "
            "(keep proofs, as without it) is needed"
        )
    own = getattr(workspace.task, "origin", None) is None and _sources(workspace.network) <= _KNOWN
    return ProofFolder(cache_folder("proofs")) if wanted == "1" and own else None


def _sources(network: Network) -> set[str]:
    return {type(module).__module__.partition(".")[0] for module in network.modules()}


@dataclass(frozen=True)
class ProofFolder:
    """Proofs in a folder, one file per key.

    Attributes:
        path: The folder; made by the first proof.
    """

    path: Path

    def read(self, key: str, tried: BatchShapes) -> Proof | None:
        """Returns the proof of a key; None: there is none, or the entry cannot be trusted.

        Args:
            key: What the proof must belong to.
            tried: The shapes that a proof would try now.
        """
        place = self._place(key)
        try:
            if not place.exists():
                return None
            if not _is_own(self.path.stat()):
                raise ValueError("others may write to its folder")
            with open_file(place) as file:
                if not _is_own(os.fstat(file.fileno())):
                    raise ValueError("others may write to it")
                content = file.read(MOST_BYTES + 1)
            values = read_json(content, most_bytes=MOST_BYTES, most_values=MOST_VALUES)
            return _checked(values, key, tried)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            log.warning("%s: this kept proof is not used (%s); it is proved again", place, error)
            return None

    def write(self, proof: Proof) -> None:
        """Keeps a proof, and removes the oldest beyond `KEPT`; a failure is only logged."""
        try:
            private_folder(self.path)
            write_whole(self._place(proof.key), json.dumps(proof.to_json()).encode(), mode=FILE)
            self._remove_oldest()
        except OSError as error:  # a full or read-only disk: it is proved again next time
            log.warning("a proof could not be kept in %s: %s", self.path, error.strerror)

    def _place(self, key: str) -> Path:
        return self.path / f"{key}.json"

    def _remove_oldest(self) -> None:
        entries = [file for file in self.path.iterdir() if _NAME.fullmatch(file.name)]
        for file in sorted(entries, key=lambda file: file.lstat().st_mtime_ns)[:-KEPT]:
            with suppress(FileNotFoundError):  # another process removed it
                file.unlink()


def _is_own(status: os.stat_result) -> bool:
    """Whether this user alone may write to a file or folder."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _checked(values: Mapping[str, Any], key: str, tried: BatchShapes) -> Proof:
    """Returns an entry as a proof.

    Raises:
        ValueError: It is not a whole proof of this key, or of shapes that would not be tried; also
            KeyError, TypeError, AttributeError and IndexError, for other kinds of damage.
    """
    proof = Proof.from_json(values)
    if json.dumps(proof.to_json(), sort_keys=True) != json.dumps(values, sort_keys=True):
        raise ValueError("not a proof's fields")
    if proof.key != key:
        raise ValueError(f"a proof of {shortened(proof.key)}")
    datetime.strptime(proof.proved, DATED)
    _check_shapes(proof.shapes, tried)
    timed = {(length, rows) for length, rows, _ in proof.seconds}
    if len(timed) != len(proof.seconds) or timed != {
        (s.length, s.rows) for s in proof.shapes.all()
    }:
        raise ValueError("times of other shapes")
    if not all(0 <= s < math.inf for _, _, s in proof.seconds) or proof.peak_bytes < 0:
        raise ValueError("impossible times")
    return proof


def _check_shapes(shapes: BatchShapes, tried: BatchShapes) -> None:
    """Checks that a proof could have found these shapes.

    Raises:
        ValueError: It could not.
    """
    if shapes.threads != torch.get_num_threads():
        raise ValueError("another number of threads")
    if shapes.counts == one_by_one(tried.longest).counts:
        return
    if [edge for edge, _ in shapes.counts] != [edge for edge, _ in tried.counts]:
        raise ValueError("other lengths")
    for (_, rows), (_, possible) in zip(shapes.counts, tried.counts, strict=True):
        if not rows or list(rows) != sorted({*rows}) or not {*rows} <= {*possible}:
            raise ValueError("other row counts")
