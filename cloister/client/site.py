"""A site in a study: records, ledger, policy and the proposed plan as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloister.client.banding import Banding
from cloister.client.delivered import Deliveries
from cloister.client.personal import PersonalAdapter
from cloister.client.policy_file import SitePolicy
from cloister.client.secure import EpochKeys
from cloister.ledger.ledger import Ledger
from cloister.privacy.entropy import Entropy, OsEntropy, SeededEntropy
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.seeds import child_generator
from cloister.training.config import TrainingConfig
from cloister.training.units import UnitExamples


@dataclass(frozen=True)
class Site:
    """One institution in one study, as its own process sees it.

    Attributes:
        name: The site's public name.
        study: Digest of the recipe that it is asked about.
        plan: The constants that the coordinator proposes.
        policy: The institution's policy: what it accepts, and the least that it demands.
        training: The study's `[training]` section, with this machine's limits.
        units: Its encoded records, by unit; private.
        unit: What makes a unit: a record, or a person.
        ledger: The ledger of its data set.
        seed: The study's seed; it seeds the sampling only where nothing is private.
        personal: Stores the factors that never leave; None if the study has none.
        optimizer: Stores the optimizer's memory over rounds; None if the optimizer has none.
        rank: Rank of its adapters in a study of mixed ranks; None: the study's rank.
        keys: Keys of its epoch of secure aggregation, with shared noise; kept over rounds.
        deliveries: Stores the final adapter; None: the site takes none.
        banding: With correlated noise, its units' groups and the noise of recent steps; else None.
        couples_units: Whether a step that made its file looked at more than one unit.
        held_out: Its encoded held-out units, for private evaluations; private. None: it holds
            nothing out.
        start: SHA-256 of the adapter with which round 1 must begin, by the study that the site
            accepted; None: the study names none.
        from_seed: Whether tensors that no round has trained yet have the values that the study's
            seed gives (`Recipe.begins_from_seed`).
    """

    name: str
    study: str
    plan: Plan
    policy: SitePolicy
    training: TrainingConfig
    units: Sequence[UnitExamples]
    unit: Unit
    ledger: Ledger
    seed: int
    personal: PersonalAdapter | None = None
    optimizer: PersonalAdapter | None = None
    rank: int | None = None
    keys: EpochKeys | None = None
    deliveries: Deliveries | None = None
    banding: Banding | None = None
    couples_units: bool = False
    held_out: Sequence[UnitExamples] | None = None
    start: str | None = None
    from_seed: bool = True

    def stated_epsilon(self) -> float:
        """ε that a reply states: the promised one, a function of plan and budget alone."""
        return self.ledger.promise.epsilon

    def entropy(self, plan: Plan, round_number: int) -> Entropy:
        """Randomness of a round: from the operating system, or without privacy from the study's
        seed."""
        if plan.is_private:
            return OsEntropy()
        return SeededEntropy(child_generator(self.seed, "site", self.name, "round", round_number))
