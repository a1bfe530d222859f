"""The `[privacy]` section of a recipe: the promised privacy, before the noise is calibrated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cloister.bounds import LARGE, MOST_ROUNDS, MOST_SITES, SMALL, Between, Items
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds
from cloister.privacy.accounting import LARGEST_EPSILON, SMALLEST_DELTA, SMALLEST_NOISE
from cloister.privacy.bands import FEWEST, MOST
from cloister.privacy.central import CentralPlan, central_plan
from cloister.privacy.evaluations import STATISTIC_BITS, Evaluations, noise_for
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Unit

# ε = 8 is the loosest value at which published DP fine-tuning is compared (Yu et al. 2022,
# arXiv:2110.06500; Li et al. 2022, arXiv:2110.05679).
DEFAULT_EPSILON = 8.0

# Below it no test for presence gains a measurable advantage; above the accountants' limit ε counts
# as ∞.
Epsilon = Annotated[float, Between(1e-4, LARGEST_EPSILON)]
# float32 sums and their grid hold these magnitudes with room to spare.
Norm = Annotated[float, Between(SMALL, LARGE)]
# A mechanism that publishes each record with probability δ satisfies (0, δ)-DP (Dwork and Roth
# 2014, section 2.3), so a δ of 0.1 gives no protection. The search for its noise is slow, too.
LARGEST_DELTA = 0.1
Delta = Annotated[float, Between(SMALLEST_DELTA, LARGEST_DELTA)]
# In rising order.
EvaluationRounds = Annotated[
    tuple[Annotated[int, Between(1, MOST_ROUNDS)], ...], Items(MOST_ROUNDS)
]
# Gradients of a person's records are held together before they are averaged.
MOST_OF_A_PERSON = 10_000


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """What every site is promised for the whole study.

    Attributes:
        enabled: `false` runs the same loop without clipping and noise, ε = ∞, for comparison.
        unit: The unit whose presence is hidden: one `record`, or one `person` with all records;
            `data.person` names the column.
        max_records_per_person: Where the unit is a person, how many records of one count; their
            gradients are averaged before they are clipped.
        max_rows_per_record: Where the unit is a record, how many rows of one count: itself and the
            copies that `cloister data augment` made of it. Their gradients are averaged before they
            are clipped, so ε stays. Absent: 1, so that no copy is used.
        epsilon: Target ε of each site over all rounds; the noise multiplier is solved for.
            Absent together with `noise_multiplier`: 8.
        noise_multiplier: Noise standard deviation over `max_grad_norm`; states the noise instead
            of ε. 0 clips without noise, which is not private (ε = ∞).
        delta: δ of the guarantee; should stay below 1/(10 n) of the smallest site.
        max_grad_norm: Bound on the Euclidean norm of one record's gradient over all trainable
            parameters at once. A recipe of token classification that states none gets 1.
        max_update_norm: Bound on the norm of what one site sends in one round; it limits a site's
            influence on the others, and costs no privacy (post-processing).
        noise: Who adds the noise. `site`: each site adds all of it, so that every update that
            leaves is noised. `shared`: the sites of a sum add it together, under secure
            aggregation, in gradient rounds; the coordinator sees only the sum, with √(number of
            honest sites) times less noise.
        noise_bands: b: correlates each site's noise over b rounds, so that part of it cancels in
            the sum of all rounds; a record is then in every b-th batch only, at b times the rate.
            It divides `federation.num_rounds`. It helps where batches are small (`cloister plan`
            says how much), and needs a secret file at each site. Absent: independent noise.
        evaluation_rounds: Rounds after which each site scores the global adapter on the units that
            it holds out of training (`site.held_out_share`; in simulations `data.held_out_share`),
            and releases their clipped statistics with noise. ε counts these releases. Absent: no
            private evaluation.
        evaluation_noise_multiplier: Noise standard deviation of an evaluation over the bound on one
            unit's statistics. Absent: 4 · √(number of evaluations), so that all of them together
            cost as much as one of noise multiplier 4. With shared noise it is that of the fewest
            honest sites together.
        missing_sites: With shared noise, most sites whose update may be missing in a round; if more
            are missing, the round is aborted and nothing is unmasked.
        colluding_sites: With shared noise, most sites that may collude with the coordinator without
            raising the others' ε.
        secure_bits: Bits of a value in a message with shared noise; 16 halves the bytes, but needs
            small batches and few parameters.
        site_epsilon: Target ε of a whole site with all its records, over all rounds, against
            anybody who sees the adapters: the coordinator adds noise for it. Useful with many
            sites. Absent: no such noise.
        site_delta: δ of `site_epsilon`.
        site_noise_forced: Add that noise even with so few sites that it hides what they learn.
        site_budgets: In simulations, the lifetime budget ε of each site's data set, in the order of
            the sites; a site whose budget is spent no longer takes part. Absent: the study's own
            cost.
    """

    enabled: bool = True
    unit: Unit = Unit.RECORD
    # Bounds memory; an average of 8 has most of the benefit of more.
    max_records_per_person: Annotated[int, Between(1, MOST_OF_A_PERSON)] = 8
    max_rows_per_record: Annotated[int, Between(1, MOST_OF_A_PERSON)] | None = field(
        default=None, metadata=LATER
    )
    epsilon: Epsilon | None = field(default=None, metadata=called("eps target_epsilon"))
    noise_multiplier: Annotated[float, Between(0.0, MOST_NOISE)] | None = field(
        default=None, metadata=called("sigma")
    )
    # The literature's, fit for sites of up to 10,000 records.
    delta: Delta = field(default=1e-5, metadata=called("target_delta"))
    # For a head on features of norm √384; most records stay unclipped.
    max_grad_norm: Norm = field(
        default=8.0,
        metadata=called("clip clip_norm clipping clipping_norm max_norm l2_norm_clip l2_clip_norm"),
    )
    max_update_norm: Norm = 50.0
    noise: Literal["site", "shared"] = "site"
    noise_bands: Annotated[int, Between(FEWEST, MOST)] | None = field(default=None, metadata=LATER)
    evaluation_rounds: EvaluationRounds | None = field(default=None, metadata=LATER)
    evaluation_noise_multiplier: Annotated[float, Between(SMALLEST_NOISE, MOST_NOISE)] | None = (
        field(default=None, metadata=LATER)
    )
    missing_sites: Annotated[int, Between(0, MOST_SITES)] = 0
    colluding_sites: Annotated[int, Between(0, MOST_SITES)] = 1
    secure_bits: Literal[16, 32] = 32
    site_epsilon: Epsilon | None = None
    site_delta: Delta = 1e-5  # fit for up to 10,000 sites, as `delta` is for records
    site_noise_forced: bool = False
    site_budgets: Annotated[tuple[Epsilon, ...], Items(MOST_SITES)] = ()

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise UsageError(
                "epsilon, noise_multiplier: both given; give the target epsilon (the noise is "
                "solved for) or the noise multiplier (epsilon follows), not both"
            )
        if self.unit is Unit.PERSON and self.max_rows_per_record is not None:
            raise UsageError(
                f"max_rows_per_record: {self.max_rows_per_record} given, and the unit is a person; "
                "set max_records_per_person, which counts copies too"
            )
        if self.noise_bands is not None and self.noise == "shared":
            raise UsageError(
                f"noise_bands: {self.noise_bands} given with shared noise; correlated noise holds "
                "only for a site that has all of its own noise (a missing site would break its "
                'law): set noise = "site", or leave noise_bands out'
            )
        if self.noise_bands is not None and self.noise_multiplier == 0:
            raise UsageError(
                f"noise_bands: {self.noise_bands} given with noise_multiplier 0; there is no noise "
                "to correlate: leave one of them out"
            )
        self._check_evaluations()
        noise = self.noise_multiplier
        if noise is not None and not (noise == 0 or SMALLEST_NOISE <= noise <= MOST_NOISE):
            raise UsageError(
                f"noise_multiplier: {noise} given; a number from {SMALLEST_NOISE} to "
                f"{MOST_NOISE:g} is needed, or 0 for none"
            )

    def _check_evaluations(self) -> None:
        rounds = self.evaluation_rounds
        if rounds is None:
            if self.evaluation_noise_multiplier is not None:
                raise UsageError(
                    "evaluation_noise_multiplier: given without evaluation_rounds; name the rounds "
                    "after which sites evaluate, or leave it out"
                )
            return
        if not rounds or list(rounds) != sorted(set(rounds)):
            raise UsageError(
                "evaluation_rounds: rounds are needed, each once and in rising order, such as "
                "[10, 20, 30]"
            )
        if self.noise == "shared" and self.secure_bits != STATISTIC_BITS:
            raise UsageError(
                f"evaluation_rounds: given with shared noise and secure_bits {self.secure_bits}, "
                "with which counts of units would not fit; set secure_bits = "
                f"{STATISTIC_BITS}, or leave it out"
            )
        if self.noise_bands is not None:
            raise UsageError(
                "evaluation_rounds: given with noise_bands, whose cycles are charged as a whole; "
                "leave one of them out"
            )
        if self.site_epsilon is not None:
            raise UsageError(
                "evaluation_rounds: given with site_epsilon, but an evaluation's noise hides "
                "units and not a whole site; leave one of them out"
            )
        if self.noise_multiplier == 0:
            raise UsageError(
                "evaluation_rounds: given with noise_multiplier 0, which is not private (ε = ∞); "
                "leave one of them out"
            )

    @property
    def evaluations(self) -> Evaluations | None:
        """The private evaluations; None: there are none, or nothing is private."""
        rounds, noise = self.evaluation_rounds, self.evaluation_noise
        if rounds is None or noise is None or not self.enabled:
            return None
        return Evaluations(rounds=rounds, noise_multiplier=noise)

    @property
    def evaluation_noise(self) -> float | None:
        """The noise multiplier of each evaluation; None: there are none."""
        if self.evaluation_rounds is None or self.evaluation_noise_multiplier is not None:
            return self.evaluation_noise_multiplier
        return noise_for(len(self.evaluation_rounds))

    def sharing(self, sites: int) -> Sharing | None:
        """Returns how the noise is shared; None if each site adds all of its own, or none is added.

        Raises:
            RefusedError: The sites are too few.
        """
        if self.noise == "site" or not self.enabled:
            return None
        return Sharing(
            sites=sites,
            missing=self.missing_sites,
            colluding=self.colluding_sites,
            bits=self.secure_bits,
        )

    def central(self, sites: int, rounds: int) -> CentralPlan | None:
        """Returns the plan of the noise that the coordinator adds; None where it adds none.

        Raises:
            RefusedError: No amount of noise meets the target.
        """
        if self.site_epsilon is None or not self.enabled:
            return None
        return central_plan(
            self.site_epsilon,
            self.site_delta,
            sites=sites,
            rounds=rounds,
            max_update_norm=self.max_update_norm,
        )

    @property
    def bands(self) -> int:
        """b, the rounds over which noise is correlated; 1: it is independent, or there is none."""
        return (self.noise_bands or 1) if self.enabled else 1

    @property
    def max_records(self) -> int:
        """Rows of one unit that count: of a person, or made of one record."""
        if self.unit is Unit.PERSON:
            return self.max_records_per_person
        return self.max_rows_per_record or 1

    @property
    def target_epsilon(self) -> float | None:
        """The ε to solve for; None where the noise multiplier is stated instead."""
        if self.noise_multiplier is not None:
            return None
        return DEFAULT_EPSILON if self.epsilon is None else self.epsilon
