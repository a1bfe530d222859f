"""Summarizes ranks of canaries and attempts at extraction, with intervals."""

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

# Secrets are counted among these shares of the most likely numbers.
SHARES = (0.01, 0.1, 0.5)


@dataclass(frozen=True)
class ShareFound:
    """The share of secrets that are among the most likely numbers.

    Attributes:
        share: The share of the numbers; by chance, the same share of secrets is among them.
        planted: The share of the planted secrets among them; None: no canary was planted.
        kept_out: The share of the kept-out secrets among them; None: none was kept out.
        most: The largest share of planted secrets that the promised ε allows; None: no ε is known.
    """

    share: float
    planted: Interval | None
    kept_out: Interval | None
    most: float | None


@dataclass(frozen=True)
class CanariesFound:
    """The figures of one model's canaries.

    Attributes:
        counts: Number of planted and of kept-out canaries.
        others: Number of other numbers among which each secret is ranked.
        digits: Number of digits of a secret.
        planted: Mean exposure of the planted, in bits.
        kept_out: Mean exposure of the kept-out, in bits.
        chance: Mean exposure for a model that knows no secret.
        largest: The largest exposure that so many numbers can show.
        shares: The found secrets, for each share of the most likely numbers.
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
        """Returns all figures as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ExtractionRow:
    """The figures of one model's attempts on one kind of record.

    Attributes:
        model: The model's name.
        records: The kind of records, in words.
        count: Number of attempts.
        tokens: The number k of wanted tokens.
        samples: Number of samples for each attempt.
        right: Mean share of the k tokens that are correct before the first wrong one (greedy).
        greedy: Share of attempts for which greedy decoding gives all k tokens.
        sampled: Share of attempts for which a sample has all k tokens; None: no sample was drawn.
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
        given: The end of the text that the model read.
        wanted: The text that it produced.
    """

    given: str
    wanted: str


def measure_canaries(
    model: Model, canaries: Canaries, others: int, seed: int, promise: Promise | None
) -> CanariesFound:
    """Ranks the secrets of planted and kept-out canaries.

    Args:
        model: The finished model.
        canaries: Canaries of the study's kind of record.
        others: Number of other numbers among which each secret is ranked.
        seed: The seed of these numbers and of the intervals' resamples.
        promise: The study's promise; None: there is none, or it is not known.
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
    """Summarizes the attempts of one model on one kind of record.

    Args:
        model: The model's name.
        records: The kind of records, in words.
        found: The result of each attempt.
        tokens: The number k of wanted tokens.
        samples: Number of samples for each attempt.
        seed: The seed of the interval's resamples.
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
