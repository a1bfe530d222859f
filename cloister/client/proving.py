"""A study's gradients and times, proven at the site on synthetic records before it says `ready`.

What passes the policy is not yet sound: adapters on modules that the batch shares give per-record
gradients that bound nothing (DeBERTa's relative positions: one unit's influence was twice the
bound). So each site proves its own, on its own machine. The outcome is kept in the agent's folder,
by everything that it depends on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from cloister.adapter.wire import encode
from cloister.client.admission import Admitted
from cloister.data.nobody import nobody_s_records
from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.errors import CloisterError, PreflightError
from cloister.files import write_whole
from cloister.models.state import write_adapter
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe
from cloister.tasks.task import Example
from cloister.training.local import local_update
from cloister.training.preflight import preflight
from cloister.training.shared import shared_gradient

log = logging.getLogger(__name__)

# Proofs that are kept; a coordinator that asks for ever must not fill the disk.
KEPT = 32
# What a proof holds for: the packages whose kernels and hooks it tried.
PACKAGES = ("cloister", "torch", "transformers", "peft", "opacus", "tokenizers")
# Deviations of a batch's size that are made room for: 3·10⁻⁷ of draws lie above.
SPREAD = 5.0
# Units of a first step, of which a few are drawn.
WARM = 16
# Seconds of a round beside its steps: two synced writes of the ledger, the accountant's ε, the
# message's encoding; measured on the tiny demos, where they are most of a round.
BESIDE = 0.1


@dataclass(frozen=True)
class Proof:
    """What was found on synthetic records; holds as long as its key.

    Attributes:
        step_seconds: Of one local step on the expected batch, every record of greatest length.
        encode_seconds: Of encoding one such record.
    """

    step_seconds: float
    encode_seconds: float

    def round_seconds(self, plan: Plan) -> float:
        """Of a round, should each of its batches be as large as draws are.

        Sizes of Poisson batches have a deviation of at most √B around B; SPREAD of them above it
        are drawn less than once in a million steps.
        """
        size = plan.expected_batch_size
        return BESIDE + plan.local_steps * self.step_seconds * (1 + SPREAD / math.sqrt(size))


def prove(admitted: Admitted, recipe: Recipe, cache: Path) -> Proof:
    """Proves a study's per-record gradients and measures a step, or takes what was proven before.

    Args:
        admitted: The site in the study.
        recipe: The study's.
        cache: File of earlier proofs; made, and mended where it cannot be read.

    Raises:
        PreflightError: What is wrong, by name.

    Guarantees:
        No record of the site's is looked at; nothing is charged.
    """
    key = _key(admitted, recipe)
    known = _read(cache)
    if key in known:
        return known[key]
    found = _proven(admitted, recipe.task.max_length)
    kept = dict(list({**known, key: found}.items())[-KEPT:])
    document = {name: asdict(proof) for name, proof in kept.items()}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps(document, indent=2).encode(), mode=0o600)
    except OSError as error:  # as on a full disk: it is proven again next time
        log.warning("a proof could not be kept: %s", error.strerror)
    return found


def _read(cache: Path) -> dict[str, Proof]:
    """Earlier proofs; a file that cannot be read holds none, and is written anew."""
    try:
        found = json.loads(cache.read_text("utf-8"))
        return {key: Proof(**fields) for key, fields in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(admitted: Admitted, recipe: Recipe) -> str:
    """A hash of all that a proof depends on."""
    workspace, site, plan = admitted.workspace, admitted.site, admitted.plan
    device = workspace.network.device
    about = {
        "base": workspace.base_sha256,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "shapes": {name: list(shape) for name, shape in sorted(workspace.whole.shapes.items())},
        "modules": list(workspace.network.adapted_modules),
        "start": hashlib.sha256(encode(workspace.whole)).hexdigest(),
        "task": asdict(recipe.task),
        "lora": asdict(recipe.lora),
        "training": asdict(site.training),
        "isolate": site.policy.privacy.isolate_units,
        "plan": [plan.public_records, plan.expected_batch_size, plan.max_records, plan.unit],
        "dtype": str(next(workspace.network.backbone.parameters()).dtype),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _proven(admitted: Admitted, length: int) -> Proof:
    workspace, plan = admitted.workspace, admitted.plan
    records = nobody_s_records(
        workspace.task.record_kind, workspace.task.labels,
        max(2, min(plan.public_records, 2 * plan.expected_batch_size)), 1,
    )  # fmt: skip
    try:
        started = time.perf_counter()
        longest = [workspace.task.encode(_long(record, length)) for record in records]
        encoding = (time.perf_counter() - started) / len(longest)
        write_adapter(workspace.network, workspace.start)
        workspace.train_names(frozenset(workspace.start))
        pair = [longest[0], workspace.task.encode(records[0])]
        preflight(workspace.network, workspace.task, pair)
        _step_seconds(admitted, longest, WARM)  # what loads at its first use is no part of a step
        return Proof(_step_seconds(admitted, longest, plan.public_records), encoding)
    except PreflightError:
        raise
    except (
        CloisterError, RuntimeError, ValueError, LookupError, TypeError, MemoryError
    ) as error:  # fmt: skip
        raise PreflightError(
            f"preflight: a step on synthetic records of task.max_length = {length} tokens fails "
            f"({type(error).__name__}: {error}); ask the coordinator for shorter records, or "
            "another base"
        ) from error


def _step_seconds(admitted: Admitted, longest: list[Example], count: int) -> float:
    """One step of the study as it will run, on so many synthetic units."""
    workspace, site = admitted.workspace, admitted.site
    plan = replace(admitted.plan, local_steps=1)
    training = site.training
    if site.policy.privacy.isolate_units:
        training = replace(training, physical_batch_tokens=1)
    found = itertools.cycle(longest)
    units = [tuple(itertools.islice(found, plan.max_records)) for _ in range(count)]
    started = time.perf_counter()
    if plan.sharing is not None:
        shared_gradient(
            workspace.network, workspace.task, units, workspace.start, plan, training,
            entropy=OsEntropy(),
        )  # fmt: skip
    else:
        local_update(
            workspace.network, workspace.task, units, workspace.start, plan, training,
            round_number=1, entropy=OsEntropy(), rank=site.rank,
        )  # fmt: skip
    return time.perf_counter() - started


def _long(record: Record, length: int) -> Record:
    """A record of at least so many words, and so of as many tokens."""
    if isinstance(record, TextRecord):
        return replace(record, text=_repeated(record.text, length))
    if isinstance(record, TokenRecord):
        times = -(-length // len(record.tokens))
        return replace(record, tokens=record.tokens * times, tags=record.tags * times)
    assert isinstance(record, ChatRecord)
    turns = tuple(Message(m.role, _repeated(m.content, length)) for m in record.messages)
    return replace(record, messages=turns)


def _repeated(text: str, length: int) -> str:
    return " ".join([text] * -(-length // len(text.split())))
