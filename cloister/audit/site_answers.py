"""Checks a site's answers from the request to the signed bytes: they may depend on public constants
and noised sums only, for any number of records.

All sites here have the same name, key and clock, and differ only in their records. So every
difference between their answers or ledgers is caused by records. Only the payload may differ; it
must follow byte for byte from the gradients that the optimizer got.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloister.adapter.formats import BFLOAT16_ROUNDING
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.observed import replayed, watched_optimizers
from cloister.audit.statistics import Check, Floats, exact_check
from cloister.client.admission import Admitted, admit
from cloister.client.personal import PersonalAdapter
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.models.network import trained_parameters
from cloister.privacy.plan import Plan
from cloister.protocol.exchange import RoundReply, RoundRequest, Status
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.memory import OptimizerMemory, kept_moments
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

NAME, STUDY, TIME = "site", "audit", "2000-01-01T00:00:00+00:00"
# Fields that may differ between two sites' answers: the payload, and those computed from it.
FROM_PAYLOAD = frozenset({"delta", "head", "signature"})


@dataclass(frozen=True)
class Answered:
    """One answer of a simulated site, and the answer that was expected.

    Attributes:
        reply: The answer.
        expected: The payload computed from the optimizer's gradients.
        means: The optimizer's gradients, one vector per step.
        parts: Number of values of each tensor in it.
        differing: Fields that differ from plan and ledger.
    """

    reply: RoundReply
    expected: bytes
    means: Sequence[Floats]
    parts: tuple[int, ...]
    differing: tuple[str, ...]


def answer_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Checks answers of sites without records, with one unit, with few and with many.

    Args:
        recipe: The study; its noise is not shared.
        audited: Its site, with synthetic records.
    """
    units = audited.units
    sites: list[Sequence[UnitExamples]] = [(), (), units[:1], units, (units * 5)[::-1][:-3]]
    numbers = [n for n in (1, 2) if n <= audited.plan.num_rounds]
    given: list[list[Answered]] = []
    ledgers: list[list[dict[str, Any]]] = []
    again = 0
    with tempfile.TemporaryDirectory() as folder:
        for count, records in enumerate(sites):
            path = Path(folder) / f"{count}.ledger"
            site = _site(recipe, audited, records, path)
            memory = OptimizerMemory.empty(site.training, audited.workspace.start.shapes)
            given.append([_answered(site, audited.workspace, n, memory) for n in numbers])
            last = _asked(admit(site, audited.workspace), numbers[-1])
            again += int(last != given[-1][-1].reply)
            ledgers.append([entry.fields for entry in LedgerFile(path, None).entries()])
    every = [one for site_s in given for one in site_s]
    differing = {name for one in every for name in one.differing} | _differing(given)
    return [
        exact_check(
            "answer fields",
            "fields of an answer that differ between sites, or from "
            f"plan and ledger: {', '.join(sorted(differing)) or 'none'}",
            len(differing),
        ),
        exact_check(
            "answer bytes",
            "payloads that differ from the one computed from the noised sums, or in length",
            sum(one.reply.delta != one.expected for one in every)
            + len({(one.reply.round, len(one.reply.delta)) for one in every})
            - len(numbers),
        ),
        exact_check("answers asked again", "answers that change when they are asked again", again),
        exact_check(
            "ledger entries",
            "entries of a ledger that differ between sites, except for the hashes of releases",
            _entries_apart(ledgers),
        ),
        _noise(audited.plan, [one for site_s in given[:2] for one in site_s]),
    ]


def _site(recipe: Recipe, audited: AuditedSite, units: Sequence[UnitExamples], path: Path) -> Site:
    plan = audited.plan
    budget = simulated_budget(plan)
    ledger = Ledger.create(path, budget, plan.unit, key=path.with_name("key"), clock=lambda: TIME)
    return Site(
        name=NAME,
        study=STUDY,
        plan=plan,
        # Questions hold the start, whole and exact, whatever the study's adapter is rounded to.
        training=replace(recipe.training, adapter_dtype=None),
        units=units,
        unit=plan.unit,
        policy=simulated_policy(recipe, plan, budget, audited.workspace),
        ledger=ledger,
        seed=recipe.study.seed,
        optimizer=PersonalAdapter.of_optimizer(path, STUDY)
        if kept_moments(recipe.training)
        else None,
    )


def _asked(admitted: Admitted, number: int) -> RoundReply:
    request = RoundRequest(STUDY, number, encode(admitted.workspace.whole))
    return run_round(admitted, request, lambda: None)


def _answered(site: Site, workspace: Workspace, number: int, memory: OptimizerMemory) -> Answered:
    admitted = admit(site, workspace)  # outside of the watch, since its proof also takes steps
    with watched_optimizers() as means:
        reply = _asked(admitted, number)
    differing = tuple(_differing_fields(reply, site, number))
    parts = tuple(p.numel() for _, p in trained_parameters(workspace.network))
    expected = _payload(site, workspace, means, number, memory)
    return Answered(reply, expected, means, parts, differing)


def _payload(
    site: Site,
    workspace: Workspace,
    means: Sequence[Floats],
    number: int,
    memory: OptimizerMemory,
) -> bytes:
    """The payload computed from this round's sums and the optimizer's memory of earlier rounds."""
    start = Adapter({**workspace.whole, **workspace.start.select(workspace.kept)})
    delta = replayed(
        workspace,
        means,
        site.plan,
        site.training,
        round_number=number,
        start=start,
        memory=memory,
    )
    sent = delta.select(delta.keys() - workspace.kept)
    if site.training.update_dtype == "bfloat16":
        return encode(sent.scale(1 - BFLOAT16_ROUNDING), "bfloat16")
    return encode(sent, site.training.update_dtype, site.plan.max_update_norm)


def _differing_fields(reply: RoundReply, site: Site, number: int) -> list[str]:
    """Fields that differ from plan and ledger."""
    sound = {
        "site": reply.site == NAME,
        "round": reply.round == number,
        "status": reply.status is Status.TRAINED,
        "epsilon": reply.epsilon == site.ledger.promise.epsilon,
        "head": reply.head == site.ledger.head.hash,
        "signature": reply.signature == site.ledger.sign(reply.statement(STUDY)),
        "delta": True,
    }
    return [field.name for field in fields(reply) if not sound.get(field.name, False)]


def _differing(given: Sequence[Sequence[Answered]]) -> set[str]:
    """Fields that differ between sites in the same round."""
    names = {field.name for field in fields(RoundReply)} - FROM_PAYLOAD
    rounds = [[one.reply for one in same] for same in zip(*given, strict=True)]
    return {
        name
        for replies in rounds
        for name in names
        if len({repr(getattr(reply, name)) for reply in replies}) > 1
    }


def _entries_apart(ledgers: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Entries that differ in more than hashes of releases."""
    if len({len(entries) for entries in ledgers}) > 1:
        return max(len(entries) for entries in ledgers)
    hashes = {"prev", "sha256"}
    public = [
        {repr(sorted((k, v) for k, v in entry.items() if k not in hashes)) for entry in same}
        for same in zip(*ledgers, strict=True)
    ]
    return sum(len(kinds) > 1 for kinds in public)


def _noise(plan: Plan, answers: Sequence[Answered]) -> Check:
    """Checks the noise in the optimizers' gradients at two sites without records."""
    parts = answers[0].parts
    rows = [mean for one in answers if one.parts == parts for mean in one.means]
    deviation = plan.noise_multiplier * (plan.max_grad_norm or 0.0)
    values = np.array(rows) * plan.expected_batch_size
    if values.ndim != 2:
        values = np.zeros((2, sum(parts)))  # no step was taken
    return noise_check(
        "noise of answers",
        "properties of the noise of two sites without records in the same rounds",
        Releases(values, parts, deviation),
    )
