"""What a simulation came to, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.canonical import json_number
from cloister.data.census import Census
from cloister.ledger.chain import Head
from cloister.ledger.stated import Stated
from cloister.privacy import adversaries
from cloister.privacy.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What a run came to at one site.

    Attributes:
        name: The site.
        promise: What its ledger promises: of the whole plan, or of its budget.
        spent: What its rounds come to; an indication.
        steps: Steps charged.
        sample_rate: Probability of a unit to be in a batch.
        noise_multiplier: Noise standard deviation over the clip bound; 0 without privacy.
        public_records: Its declared number of units (records, or persons).
        ledger: Where its ledger ended.
    """

    name: str
    promise: Stated
    spent: Stated
    steps: int
    sample_rate: float
    noise_multiplier: float
    public_records: int
    ledger: Head

    @property
    def epsilon(self) -> float:
        """ε promised; with δ and unit in `promise`."""
        return self.promise.epsilon


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run came to.

    Attributes:
        run_dir: Its folder.
        task: Its task's kind.
        metric: The name of its primary metric.
        rounds: Rounds closed.
        test: Scores on the public test set.
        majority: What saying the same of every test record reaches; None where there are no labels.
        sites: One for each site, in order of their names.
        bytes_per_update: Bytes of the largest update that a site sent.
        seconds: Wall time.
        plans: By site: what its ε is of.
        census: The sites' privacy units, counted; only a simulation may tell.
        untrained: Scores of the adapter before round 1 on it, null where one is no number; empty of
            a run that was begun before they were computed.
        plain_test: The same run's scores without privacy, untuned, where a twin was run.
        personal_test: Where sites have adapters of their own beside the shared one, the mean of
            these on the public test set; only a simulation sees them side by side.
        lexical: Of retrieval: scores of ranking by shared words on the public test set.
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
        return document
