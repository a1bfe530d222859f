"""The result of a simulation, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.canonical import json_number
from cloister.data.census import Census
from cloister.evidence.began import Began
from cloister.export.card_began import Forgetting
from cloister.ledger.chain import Head
from cloister.ledger.stated import Stated
from cloister.privacy import adversaries
from cloister.privacy.estimated_scores import SelectedRound
from cloister.privacy.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """The result of a run at one site.

    Attributes:
        name: The site.
        promise: The promise of its ledger: of the whole plan, or of its budget.
        spent: The ε of its rounds; an indication.
        steps: Number of charged steps of trained rounds.
        evaluations: Number of charged private evaluations.
        sample_rate: Probability that a unit is in a batch.
        noise_multiplier: Noise standard deviation over the clip bound; 0 without privacy.
        public_records: Its declared number of units (records, or persons).
        ledger: The head of its ledger.
    """

    name: str
    promise: Stated
    spent: Stated
    steps: int
    sample_rate: float
    noise_multiplier: float
    public_records: int
    ledger: Head
    evaluations: int = 0

    @property
    def epsilon(self) -> float:
        """Returns the promised ε; δ and unit are in `promise`."""
        return self.promise.epsilon


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        run_dir: Its folder.
        task: Its task's kind.
        metric: The name of its primary metric.
        rounds: Number of closed rounds.
        test: Scores on the public test set.
        majority: The score of one constant answer for every test record; None without labels.
        sites: One for each site, in order of their names.
        bytes_per_update: Bytes of the largest update that a site sent.
        seconds: Wall time.
        plans: The plan of each site, by site.
        census: True counts of the sites' privacy units; only a simulation may show them.
        untrained: Scores of the untrained adapter on the test set, null if one is not a number;
            empty for a run from before they were computed.
        plain_test: Scores of the same run without privacy, not tuned; None: no twin was run.
        personal_test: If sites have their own adapters, the mean of their scores on the public
            test set; only a simulation has all of them.
        lexical: For retrieval: scores of a ranking by shared words on the public test set.
        began: The finished run with whose adapter the study began; None: it began afresh. The
            promises and what was spent cover both studies.
        private_evaluations: Estimates from the private evaluations on held-out units, oldest first.
        old_test: Scores on an older public test set; None: the recipe names none.
        selected: The round whose adapter is released by its score; None: the last.
    """

    run_dir: Path
    task: str
    metric: str
    rounds: int
    test: Mapping[str, float]
    majority: float | None
    sites: tuple[SiteResult, ...]
    bytes_per_update: int
    seconds: float
    plans: Mapping[str, Plan]
    census: Census
    untrained: Mapping[str, float | None] = field(default_factory=dict)
    plain_test: Mapping[str, float] | None = None
    personal_test: Mapping[str, float] | None = None
    lexical: Mapping[str, float] = field(default_factory=dict)
    began: Began | None = None
    old_test: Forgetting | None = None
    private_evaluations: Sequence[Mapping[str, Any]] = ()
    selected: SelectedRound | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values; ∞ is null."""
        document: dict[str, Any] = {
            "run_dir": str(self.run_dir),
            "task": self.task,
            "rounds": self.rounds,
            "unit": next(iter(self.plans.values())).unit,
            "neighbouring": next(iter(self.plans.values())).neighbouring,
            "adversaries": adversaries.names(self.plans.values()),
            "test": {name: json_number(value) for name, value in self.test.items()},
            "sites": [
                {
                    "name": site.name,
                    "promise": site.promise.to_json(),
                    "spent": site.spent.to_json(),
                    "steps": site.steps,
                    "sample_rate": site.sample_rate,
                    "noise_multiplier": site.noise_multiplier,
                    "public_records": site.public_records,
                    **({"evaluations": site.evaluations} if site.evaluations else {}),
                }
                for site in self.sites
            ],
            "census": self.census.to_json(),
            "bytes_per_update": self.bytes_per_update,
            "seconds": round(self.seconds, 1),
        }
        if self.majority is not None:
            document["majority"] = self.majority
        if self.untrained:
            document["untrained_test"] = dict(self.untrained)
        if self.plain_test is not None:
            plain = {name: json_number(value) for name, value in self.plain_test.items()}
            document["plain_test"] = plain
        if self.personal_test is not None:
            own = {name: json_number(value) for name, value in self.personal_test.items()}
            document["personal_test"] = own
        if self.lexical:
            document["lexical_test"] = dict(self.lexical)
        if self.began is not None:
            document["began"] = self.began.to_json()
        if self.old_test is not None:
            document["old_test"] = {
                "before": dict(self.old_test.before),
                "after": {n: json_number(value) for n, value in self.old_test.after.items()},
            }
        if self.private_evaluations:
            document["private_evaluations"] = list(self.private_evaluations)
        if self.selected is not None:
            document["selected"] = self.selected.to_json()
        return document
