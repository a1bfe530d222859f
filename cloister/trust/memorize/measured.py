"""What is found of canaries and of attempts at extraction, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cloister.data.canaries import Canaries
from cloister.serving.model import Model
from cloister.trust.intervals import Interval, mean, wilson
from cloister.trust.memorize.exposure import CanaryRank, other_numbers, ranks
from cloister.trust.memorize.extraction import Continued
from cloister.trust.memorize.promise import (
    LowerBound,
    Promise,
    chance_exposure,
    lower_bound,
    most_exposure,
    most_found,
)

# Shares of the likeliest numbers among which secrets are counted.
SHARES = (0.01, 0.1, 0.5)


@dataclass(frozen=True)
class ShareFound:
    """How many secrets are among the likeliest numbers.

    Attributes:
        share: Of the numbers; also what chance gives.
        planted: Of the planted canaries; None: there is none.
        kept_out: Of those that were kept out; None: there is none.
        most: The most that the promised ε allows of the planted; None: no ε is known.
    """

    share: float
    planted: Interval | None
    kept_out: Interval | None
    most: float | None


@dataclass(frozen=True)
class CanariesFound:
    """What one model makes of canaries.

    Attributes:
        counts: How many were planted, and how many kept out.
        others: The numbers that each secret is ranked among.
        digits: Of a secret.
        planted: Mean exposure of the planted, in bits.
        kept_out: Mean exposure of the others.
        chance: Mean exposure of a model that knows nothing.
        largest: The largest exposure that these numbers can show.
        shares: By share of the likeliest numbers.
        most_exposure: The largest mean exposure that ε allows; None: no ε is known.
        bound: The lower bound on ε; None: no ε is known.
    """

    counts: tuple[int, int]
    others: int
    digits: int
    planted: Interval | None
    kept_out: Interval | None
    chance: float
    largest: float
    shares: tuple[ShareFound, ...]
    most_exposure: float | None
    bound: LowerBound | None

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ExtractionRow:
    """One model on one kind of record.

    Attributes:
        model: Its name.
        records: Which records.
        count: Attempts.
        tokens: k.
        samples: Samples of each attempt.
        right: Mean share of the k tokens that greedy decoding has right before its first other.
        greedy: Share of attempts of which greedy decoding gives all.
        sampled: Share of attempts of which a sample gives all; None: none was drawn.
    """

    model: str
    records: str
    count: int
    tokens: int
    samples: int
    right: Interval | None
    greedy: Interval | None
    sampled: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Returns the row as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Reproduced:
    """A private reply that the model continues word for word.

    Attributes:
        given: The end of what it read.
        wanted: What it continued with.
    """

    given: str
    wanted: str


def measure_canaries(
    model: Model, canaries: Canaries, others: int, seed: int, promise: Promise | None
) -> CanariesFound:
    """Ranks the secrets of planted and kept-out canaries.

    Args:
        model: The finished model.
        canaries: Of the study's kind of record.
        others: Numbers that each secret is ranked among.
        seed: Draws these numbers, and the intervals' resamples.
        promise: What the study promised; None: nothing, or it is not known.
    """
    numbers = other_numbers(others, canaries.digits, seed)
    found = ranks(model, canaries.canaries, numbers)
    planted = [one for one in found if one.is_planted]
    kept_out = [one for one in found if not one.is_planted]
    fewest = min(one.others for one in found)

    def exposure(of: Sequence[CanaryRank]) -> Interval | None:
        return mean(np.array([one.exposure for one in of]), np.random.default_rng(seed))

    return CanariesFound(
        counts=(len(planted), len(kept_out)),
        others=fewest,
        digits=canaries.digits,
        planted=exposure(planted),
        kept_out=exposure(kept_out),
        chance=chance_exposure(fewest),
        largest=math.log2(fewest + 1),
        shares=tuple(
            ShareFound(
                share=share,
                planted=_among(planted, share),
                kept_out=_among(kept_out, share),
                most=None if promise is None else most_found(promise, share),
            )
            for share in SHARES
        ),
        most_exposure=None if promise is None else most_exposure(promise, fewest),
        bound=None if promise is None else lower_bound(promise, found),
    )


def _among(found: Sequence[CanaryRank], share: float) -> Interval | None:
    hits = sum(one.rank <= share * (one.others + 1) for one in found)
    return wilson(hits, len(found))


def extraction_row(
    model: str, records: str, found: Sequence[Continued], tokens: int, samples: int, seed: int
) -> ExtractionRow:
    """Sums up what a model continued.

    Args:
        model: Its name.
        records: Which records.
        found: Of each attempt.
        tokens: k.
        samples: Samples of each attempt.
        seed: Of the interval's resamples.
    """
    shares = np.array([one.greedy / one.of for one in found])
    return ExtractionRow(
        model=model,
        records=records,
        count=len(found),
        tokens=tokens,
        samples=samples,
        right=mean(shares, np.random.default_rng(seed)),
        greedy=wilson(sum(one.is_greedy for one in found), len(found)),
        sampled=wilson(sum(one.is_sampled for one in found), len(found)) if samples else None,
    )
