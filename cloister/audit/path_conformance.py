"""Conformance of a site's training: the gradients that its optimizer gets, and the update.

`observed` watches `local_update`, the production path, in every step. The optimizer's gradient,
times the plan's divisor, must be the sum of exactly the drawn units, each clipped, plus noise of
the plan's size: at a site without records, at one with few, and at one with the declared number and
more, over the plan's own steps and rounds. The update must follow from these gradients alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.audit.clipping_conformance import LOW_BOUND, flat
from cloister.audit.mechanism_conformance import NoiseTerms, releases_wanted
from cloister.audit.noise_tests import Releases, noise_check
from cloister.audit.observed import ObservedRound, observe_round, plain_steps, replayed
from cloister.audit.sampler_tests import inclusion, sampler_p, unit_p
from cloister.audit.statistics import Bools, Check, Floats, exact_check, p_check, smallest
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy.entropy import Entropy
from cloister.privacy.plan import Plan
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace

MakeEntropy = Callable[[], Entropy]

# Steps with few records. Half of the units are drawn, so a unit that always or never takes part is
# found with probability 1 − 2⁻⁴⁸.
FEW_STEPS = 48
# A noise multiplier so small that a missing or doubled unit, of norm C, is a thousand times larger.
QUIET = 1e-3
# Steps at sites of the declared size, and of three times that size; and the most padded tokens of
# these steps together, for bases on a CPU: first fewer steps are taken, then the sites are made
# smaller.
FEWEST_REAL, MOST_REAL, CROWDED_STEPS, MOST_TOKENS = 5, 40, 1, 60_000


def path_parts(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy,
    shapes: BatchShapes,
) -> dict[str, Callable[[], list[Check]]]:
    """Tests `local_update` at sites of different sizes, in parts that each run alone.

    Args:
        workspace: The study's, with its trained names set.
        units: Synthetic records, by unit.
        plan: A private plan.
        config: The `[training]` section.
        make_entropy: Makes the source of randomness.
        shapes: The proven shapes of passes.
    """
    path = _Path(workspace, plan, plain_steps(config), make_entropy, shapes)
    parts = {
        "empty site": path.empty_site,
        "few records": lambda: path.few_records(units),
        "real batches": lambda: path.real_batches(units),
    }
    if plan.sharing is None:
        parts["updates"] = lambda: _updates(workspace, units, plan, config, make_entropy, shapes)
    return parts


class _Path:
    """Runs rounds of a plan without changing the parameters."""

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        config: TrainingConfig,
        make_entropy: MakeEntropy,
        shapes: BatchShapes,
    ) -> None:
        self._workspace, self._plan, self._config = workspace, plan, config
        self._make_entropy, self._shapes = make_entropy, shapes
        self._parts = tuple(p.numel() for _, p in trained_parameters(workspace.network))

    def _round(
        self, units: Sequence[UnitExamples], plan: Plan, number: int, start: Adapter | None = None
    ) -> ObservedRound:
        return observe_round(
            self._workspace,
            units,
            plan,
            self._config,
            entropy=self._make_entropy(),
            round_number=number,
            start=start,
            shapes=self._shapes,
            moves=False,
        )

    def _releases(self, means: Sequence[Floats], plan: Plan) -> Releases:
        """Returns the noised sums, computed from the optimizer's gradients."""
        sums = np.concatenate(means) * plan.expected_batch_size
        return Releases(sums, self._parts, NoiseTerms(plan, sum(self._parts)).deviation)

    def empty_site(self) -> list[Check]:
        """Checks the plan's own rounds at a site without records."""
        plan = self._plan
        wanted = releases_wanted(sum(self._parts)) // 2
        means, unexpected = [], 0
        for number in _rounds(plan, wanted):
            seen = self._round([], plan, number)
            unexpected += int(len(seen.means) != plan.local_steps)
            means.append(seen.means)
        noise = noise_check(
            "noise in training",
            "properties of the noise in the optimizer's gradients at a site "
            "without records, over the plan's steps and rounds, some of them twice",
            self._releases(means, plan),
        )
        return [
            noise,
            exact_check("steps taken", "rounds of other than the plan's steps", unexpected),
        ]

    def few_records(self, units: Sequence[UnitExamples]) -> list[Check]:
        """Checks sites of all units and of one unit, with half of them in a batch, at the plan's
        noise."""
        count = len(units)
        plan = replace(self._plan, public_records=2 * count, expected_batch_size=count)
        contributions = self._alone(units, plan, self._workspace.start)
        means, batches, unexpected = [], [], 0
        for number in _rounds(plan, FEW_STEPS):
            for site in (units, units[:1]) if number == 1 else (units,):
                seen = self._round(site, plan, number)
                unexpected += int({len(seen.means), len(seen.batches)} != {plan.local_steps})
                means.append(self._without(seen, contributions, plan))
                if site is units:
                    batches += seen.batches
        drawn, malformed = inclusion(batches, count)
        noise = noise_check(
            "noise beside records",
            "properties of the noise in the optimizer's gradients beside the "
            "sum of the drawn units, at the plan's noise",
            self._releases(means, plan),
        )
        return [
            noise,
            p_check(
                "batches in training",
                "properties of the sampler for the units that training "
                "draws; also for long units and for short ones",
                [
                    *sampler_p(drawn, plan.sample_rate),
                    float(malformed == 0),
                    *_length_p(units, drawn, plan.sample_rate),
                ],
            ),
            exact_check("steps with records", "rounds of other than the plan's steps", unexpected),
        ]

    def real_batches(self, units: Sequence[UnitExamples]) -> list[Check]:
        """Checks sites of the declared size and of three times that, with almost no noise."""
        plan = replace(
            self._plan,
            noise_multiplier=QUIET,
            local_steps=1,
            max_grad_norm=min(self._plan.max_grad_norm or 1.0, LOW_BOUND),
        )
        if plan.sharing is not None:  # so little noise needs the finer of the two grids
            plan = replace(plan, sharing=replace(plan.sharing, bits=32))
        ordered = sorted(units, key=_tokens)
        # Mostly short ones; every eighth is one of the longest quarter.
        short, long = ordered[: max(1, len(units) // 4)], ordered[-max(1, len(units) // 4) :]
        cycle = [
            long[i // 8 % len(long)] if i % 8 == 7 else short[i % len(short)]
            for i in range(8 * len(long))
        ]
        size, steps = _affordable(cycle, plan)
        contributions = self._alone(cycle, plan, self._moved())
        means, found, lengths = [], [], []
        for count, rounds in ((size, steps), (3 * size + 7, CROWDED_STEPS)):
            site = [cycle[i % len(cycle)] for i in range(count)]
            batches = []
            for number in range(1, rounds + 1):
                seen = self._round(site, plan, number, self._moved())
                means.append(self._without(seen, contributions, plan))
                batches += seen.batches
            drawn, malformed = inclusion(batches, count)
            found += [*sampler_p(drawn, plan.sample_rate), float(malformed == 0)]
            lengths += _length_p(site, drawn, plan.sample_rate)
        sampled = found + lengths if plan.sample_rate < 1 else [float(drawn.all())]
        return [
            noise_check(
                "sums of real batches",
                f"that only noise is added to the sum of the units "
                f"drawn, at sites of {size} and {3 * size + 7} units, σ = {QUIET:g}",
                self._releases(means, plan),
            ),
            p_check(
                "real batches",
                "properties of the sampler in these steps, for long units and for short ones",
                sampled,
            ),
        ]

    def _alone(self, units: Sequence[UnitExamples], plan: Plan, start: Adapter) -> list[Floats]:
        """Each unit's contribution to a sum, at an adapter."""
        workspace = self._workspace
        write_adapter(workspace.network, start)
        grid = NoiseTerms(plan, sum(self._parts)).grid
        made: dict[int, Floats] = {}
        with per_record_hooks(workspace.network):
            for unit in units:
                if id(unit) not in made:
                    made[id(unit)] = flat(
                        clipped_gradient_sum(
                            workspace.network,
                            workspace.task,
                            [unit],
                            plan.max_grad_norm or 0.0,
                            self._shapes,
                            grid,
                        )
                    )
        return [made[id(unit)] for unit in units]

    def _without(self, seen: ObservedRound, contributions: Sequence[Floats], plan: Plan) -> Floats:
        """The optimizer's gradients minus the mean of the drawn units."""
        left = seen.means.copy()
        for row, batch in zip(left, seen.batches, strict=True):
            for index, times in Counter(batch % len(contributions)).items():
                row -= times * contributions[index] / plan.expected_batch_size
        return left

    def _moved(self) -> Adapter:
        """An adapter at which every parameter has a gradient."""
        draw = np.random.default_rng(0)
        start = self._workspace.start
        return Adapter(
            {
                name: value + draw.normal(0, 0.05, value.shape).astype(np.float32)
                for name, value in start.items()
            }
        )


def _rounds(plan: Plan, steps: int) -> Iterator[int]:
    """Yields rounds with at least `steps` steps in all: round 1 twice, then first and last
    rounds."""
    count = max(2, -(-steps // plan.local_steps))
    first = min(plan.num_rounds, max(1, count // 2))
    numbers = [*range(1, first + 1), *range(plan.num_rounds, first, -1)]
    numbers = [1, *numbers[: count - 1]]
    while len(numbers) < count:
        numbers += numbers[: count - len(numbers)]
    yield from numbers


def _length_p(units: Sequence[UnitExamples], drawn: Bools, rate: float) -> list[float]:
    """p-values of how often long units were drawn, and short ones."""
    tokens = np.array([_tokens(unit) for unit in units])
    midpoint = (tokens.min() + tokens.max()) / 2
    groups = [drawn[:, tokens > midpoint], drawn[:, tokens <= midpoint]]
    return [smallest(np.array(unit_p(group.reshape(-1, 1), rate))) for group in groups]


def _tokens(unit: UnitExamples) -> int:
    return sum(len(example.input_ids) for example in unit)


def _affordable(cycle: Sequence[UnitExamples], plan: Plan) -> tuple[int, int]:
    """The declared number of units and the number of steps, or fewer if they cost too many
    tokens."""
    mean = float(np.mean([_tokens(unit) for unit in cycle]))
    steps = MOST_TOKENS / (mean * plan.expected_batch_size) - 3 * CROWDED_STEPS
    batch = MOST_TOKENS / mean / (FEWEST_REAL + 3 * CROWDED_STEPS)
    size = max(16, min(plan.public_records, batch / plan.sample_rate))
    return int(size), int(np.clip(steps, FEWEST_REAL, MOST_REAL))


def _updates(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    plan: Plan,
    config: TrainingConfig,
    make_entropy: MakeEntropy,
    shapes: BatchShapes,
) -> list[Check]:
    """Checks updates of a full, a small and an empty site under the study's own training
    settings."""
    start, last = workspace.start, plan.num_rounds
    forms, updates, apart, longest = set(), [], 0.0, 0.0
    for site, number in ((units, 1), (units, 1), (units, last), (units[:1], last), ([], last)):
        seen = observe_round(
            workspace,
            site,
            plan,
            config,
            entropy=make_entropy(),
            round_number=number,
            shapes=shapes,
        )
        follows = replayed(workspace, seen.means, plan, config, round_number=number, start=start)
        apart = max(apart, _distance(seen.delta, follows))
        longest = max(longest, seen.delta.norm())
        encoded = encode(seen.delta)
        forms.add((tuple(seen.delta.shapes.items()), len(encoded)))
        updates.append(encoded)
    # Not 0, so that a broken path that sends nothing does not fail by a division.
    short = replace(plan, max_update_norm=max(longest / 10, 1e-9))
    seen = observe_round(workspace, units, short, config, entropy=make_entropy(), shapes=shapes)
    same = len(forms) == 1 and dict(next(iter(forms))[0]) == dict(start.shapes)
    return [
        exact_check(
            "update from releases",
            "distance of an update from the one computed from the noised sums alone",
            apart,
        ),
        exact_check(
            "message form",
            "names, shapes and bytes that differ for a small or an empty site",
            0.0 if same else 1.0,
        ),
        exact_check(
            "update bound",
            "longest update over max_update_norm, set to a tenth of one",
            seen.delta.norm() / (short.max_update_norm or 0.0),
            1 + 1e-6,
        ),
        exact_check(
            "fresh noise", "equal updates in rounds that were run", len(updates) - len(set(updates))
        ),
    ]


def _distance(one: Adapter, other: Adapter) -> float:
    if dict(one.shapes) != dict(other.shapes):
        return float("inf")
    return max(float(np.abs(value - other[name]).max()) for name, value in one.items())
