"""Conformance of correlated noise: groups, the law over steps, and what ends a study.

The accountant counts ⌈T/b⌉ compositions at the rate of a group. That holds if a unit's group
follows from its own content alone, if a step draws from its own group only, and if the noise of all
steps is K⁻¹z with independent z, whatever stops, is killed or is restored in between. A site's
rounds are asked here as a coordinator asks them. Everything else about the mechanism is tested on
the same plan without correlation.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.wire import encode
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.observed import plain_steps, watched_optimizers
from cloister.audit.sampler_tests import inclusion, sampler_p
from cloister.audit.statistics import Check, Floats, exact_check, p_check
from cloister.client.admission import Admitted, admit
from cloister.client.banding import NO_MARKS, PURPOSE, Banding, noise_folder
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.data.records import Record
from cloister.errors import RefusedError, RoundSpentError
from cloister.ledger.ledger import Ledger
from cloister.ledger.unit_key import UnitKey, unit_key
from cloister.models.network import trained_parameters
from cloister.privacy.bands import inverse, length
from cloister.privacy.correlated_noise import BandedStep, RecentNoise
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.mechanism import Mechanism
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training import unit_marks as keyed

Indices = NDArray[np.int64]

STUDY = "audit"
# Units of a site whose draws are tested, and the cycles that are drawn.
UNITS, CYCLES = 400, 50
# Answered rounds of a study: two cycles and two further rounds, one of them after a kill.
BEYOND = 2
# A budget that ends no study: what is charged is tested, and not what is covered.
WIDE = 400.0


class _Killed(BaseException):
    """Ends a round as a kill would: no code of the site handles it."""


def banded_checks(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Tests the assumptions of correlated noise.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records; its plan has correlated noise.
    """
    with tempfile.TemporaryDirectory() as folder:
        study = _Study(recipe, audited, Path(folder))
        return [
            _marks(audited, unit_key(Path(folder) / "ledger")),
            *_draws(audited.plan),
            study.noise(),
            study.stopped(),
            study.entries(),
        ]


def by_hand(record: Record, unit: Unit, secret: bytes, purpose: str = PURPOSE) -> int:
    """A unit's mark, computed apart from the code that is tested."""
    if unit is Unit.PERSON and record.person is not None:
        text = f"person\0{json.dumps(record.person)}"
    else:
        own = {
            name: [[m.role, m.content] for m in value]
            if name in ("messages", "rejected")
            else value
            for name, value in _content(record).items()
        }
        text = "content\0" + json.dumps(own, sort_keys=True, separators=(",", ":"))
    inner = hashlib.sha256(text.encode()).digest()
    outer = hmac.new(secret, purpose.encode() + b"\0" + inner, "sha256").digest()
    return int.from_bytes(outer[:8], "big")


def _content(record: Record) -> dict[str, Any]:
    names = {name for kind in type(record).__mro__ for name in getattr(kind, "__slots__", ())}
    every = {name: getattr(record, name) for name in names}
    left_out = ("site", "person", "unit")
    return {n: v for n, v in every.items() if v is not None and n not in left_out}


def _marks(audited: AuditedSite, key: UnitKey) -> Check:
    """Compares groups with those by hand, in other orders and with records left out."""
    records, unit = list(audited.records), audited.plan.unit
    orders: list[list[Record]] = [records, records[::-1], records[1:], records[: len(records) // 2]]
    wrong = 0
    for order in orders:
        owners: dict[object, Record] = {}
        for place, record in enumerate(order):
            own = record.person if unit is Unit.PERSON else record.unit
            owners.setdefault(place if own is None else own, record)
        expected = [by_hand(first, unit, key.secret) for first in owners.values()]
        found = [int(mark) for mark in keyed.unit_marks(order, unit, key, PURPOSE)]
        wrong += len(set(enumerate(expected)) ^ set(enumerate(found)))
    return exact_check(
        "groups of units",
        "units whose group does not follow from their own content and the key, in four orders",
        wrong,
    )


def _draws(plan: Plan) -> list[Check]:
    """Draws at a site whose units are in known groups."""
    bands = plan.groups
    marks = np.arange(UNITS * bands, dtype=np.uint64)
    outside, malformed = 0, 0
    batches: list[list[Indices]] = [[] for _ in range(bands)]
    for number in range(CYCLES * bands):
        step = BandedStep(number, marks, RecentNoise())
        drawn = Mechanism(plan, OsEntropy(), step).draw(len(marks))
        group = number % bands
        outside += int(np.count_nonzero(drawn % bands != group))
        batches[group].append(drawn[drawn % bands == group] // bands)
    p_values: list[float] = []
    for found in batches:
        included, invalid = inclusion(found, UNITS)
        malformed += invalid
        if plan.sample_rate < 1:
            p_values += sampler_p(included, plan.sample_rate)
        else:
            malformed += int(not included.all())
    return [
        exact_check("turns of groups", "units drawn in a step of another group", outside),
        p_check(
            "rate in a group",
            "properties of the sampler among the units of the step's group, at b times the rate",
            [*p_values, float(malformed == 0)],
        ),
    ]


class _Study:
    """A site without records, asked for the rounds of a study that is killed and goes on."""

    def __init__(self, recipe: Recipe, audited: AuditedSite, folder: Path) -> None:
        self._recipe, self._audited, self._folder = recipe, audited, folder
        bands = audited.plan.groups
        self._rounds = 2 * bands + 1 + BEYOND
        self._plan = replace(audited.plan, num_rounds=self._rounds + bands)
        self._answered: list[tuple[int, Floats]] = []
        self._failures = 0
        self._steps = 0

    def _open(self) -> Admitted:
        """As another process opens the site."""
        path, plan = self._folder / "site.ledger", self._plan
        budget = simulated_budget(plan, WIDE)
        ledger = Ledger(path) if path.exists() else Ledger.create(path, budget, plan.unit)
        site = Site(
            name="site",
            study=STUDY,
            plan=plan,
            training=plain_steps(self._recipe.training),
            units=(),
            unit=plan.unit,
            policy=simulated_policy(self._recipe, plan, budget, self._audited.workspace),
            ledger=ledger,
            seed=self._recipe.study.seed,
            banding=Banding.beside(path, STUDY, unit_key(path), NO_MARKS),
        )
        return admit(site, self._audited.workspace)

    def _ask(self, number: int, on_step: Callable[[], None] = lambda: None) -> list[Floats]:
        """Asks a round; returns the released sum, or raises what the site raises."""
        admitted = self._open()
        request = RoundRequest(STUDY, number, encode(admitted.workspace.whole))
        with watched_optimizers() as means:
            run_round(admitted, request, on_step)
        return [mean * self._plan.expected_batch_size for mean in means]

    def _kill(self, number: int) -> None:
        def killed() -> None:
            raise _Killed

        try:
            self._ask(number, killed)
        except _Killed:
            return

    def noise(self) -> Check:
        """Asks two cycles and more, one round of which is killed, and whitens the releases."""
        killed = self._plan.groups + 1
        for number in range(1, self._rounds + 1):
            if number == killed:
                self._kill(number)
            else:
                (released,) = self._ask(number)
                self._answered.append((number - 1, released))
        plan, steps = self._plan, [step for step, _ in self._answered]
        column = inverse(plan.bands, max(steps) + 1)
        every = range(len(column))
        whole = np.array([[column[t - s] if s <= t else 0.0 for s in every] for t in steps])
        values = np.linalg.solve(
            np.linalg.cholesky(whole @ whole.T), np.array([sums for _, sums in self._answered])
        )
        deviation = plan.noise_multiplier * (plan.max_grad_norm or 0.0) * length(plan.bands)
        parts = [p for _, p in trained_parameters(self._audited.workspace.network)]
        return noise_check(
            "noise of bands",
            "properties of the noise of a site without records, one of whose rounds was killed, "
            "after the plan's correlation is undone",
            Releases(values, tuple(p.numel() for p in parts), deviation),
        )

    def stopped(self) -> Check:
        """Takes the noise of recent steps away, or puts back an older one: nothing may follow."""
        (file,) = noise_folder(self._folder / "site.ledger").iterdir()
        number, kept = self._rounds + 1, self._folder / "kept"
        shutil.copy(file, kept)
        self._ask(number)
        newest = file.read_bytes()
        for content in (None, kept.read_bytes(), newest[:-1], b""):
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)
            before = self._open().site.ledger.head
            try:
                self._ask(number + 1)
                self._failures += 1
            except (RefusedError, RoundSpentError):
                self._failures += int(self._open().site.ledger.head != before)
        file.write_bytes(newest)
        self._steps = self._open().site.ledger.steps
        return exact_check(
            "noise that is lost",
            "rounds that were charged or answered though the noise of recent steps was lost, cut "
            "or from another time",
            self._failures,
        )

    def entries(self) -> Check:
        """Compares the charged steps with one for each cycle that was begun."""
        expected = -(-(self._rounds + 1) // self._plan.groups)
        return exact_check(
            "charges of cycles",
            "steps charged beyond, or short of, one for each cycle of rounds",
            abs(self._steps - expected),
        )
