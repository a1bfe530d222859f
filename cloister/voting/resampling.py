"""From a round's noised votes to the candidates of the next: drawn by votes, and varied.

Math:
    With h the noised count of a candidate and t the threshold, its weight is max(h − t, 0) (Lin et
    al. 2024, arXiv:2305.15560, algorithm 1 and section 4.2). Of the n candidates of a label, n are
    drawn with replacement by weight. One that is drawn c times stays once, and c − 1 variations of
    it are written. Where no weight of a label is above 0, the label's candidates all stay.

Everything here is a function of public texts, noised counts and the study's seed: post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloister.privacy.noised_ratio import Floats
from cloister.protocol.candidates import CandidateText
from cloister.seeds import child_generator
from cloister.voting.generator import TextGenerator


def drawn(
    candidates: Sequence[CandidateText],
    votes: Floats,
    threshold: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Returns how often each candidate is drawn; the numbers of a label's add up to their number.

    Args:
        candidates: The candidates of the round, K.
        votes: Their noised counts, [K].
        threshold: What is taken off each count.
        rng: Draws them.
    """
    counts = np.zeros(len(candidates), dtype=np.int64)
    labels = np.array([one.label for one in candidates])
    for label in sorted(set(labels.tolist())):
        places = np.flatnonzero(labels == label)
        weights = np.clip(votes[places] - threshold, 0.0, None)
        if weights.sum() > 0:
            counts[places] = rng.multinomial(len(places), weights / weights.sum())
        else:
            counts[places] = 1
    return counts


def next_candidates(
    candidates: Sequence[CandidateText],
    votes: Floats,
    *,
    threshold: float,
    number: int,
    seed: int,
    generator: TextGenerator | None,
) -> list[CandidateText]:
    """Returns the texts after a round: those that were drawn, each followed by its variations.

    Args:
        candidates: The candidates of the round, K.
        votes: Their noised counts, [K].
        threshold: What is taken off each count.
        number: The round.
        seed: The study's seed.
        generator: Writes variations; None: each drawn text is there once, so there are fewer.
    """
    counts = drawn(candidates, votes, threshold, child_generator(seed, "votes", "draw", number))
    found: list[CandidateText] = []
    for place, count in enumerate(counts.tolist()):
        if not count:
            continue
        one = candidates[place]
        found.append(one)
        if generator is not None and count > 1:
            found += generator.variations(one, count - 1, number, place)
    return found


def first_candidates(
    public: Sequence[CandidateText],
    labels: Sequence[str],
    count: int,
    *,
    seed: int,
    generator: TextGenerator | None,
) -> list[CandidateText]:
    """Returns the candidates of round 1: public texts, and variations of them where they are few.

    Args:
        public: Public texts with their labels, enough of them (`public_texts.check_public`).
        labels: The study's labels; each gets the same number of candidates, the first ones perhaps
            one more.
        count: K.
        seed: The study's seed.
        generator: Writes variations; None: there are enough public texts.
    """
    found: list[CandidateText] = []
    for place, label in enumerate(labels):
        wanted = count // len(labels) + (place < count % len(labels))
        own = [one for one in public if one.label == label]
        order = child_generator(seed, "votes", "first", place).permutation(len(own))
        chosen = [own[int(at)] for at in order[:wanted]]
        found += chosen
        missing = wanted - len(chosen)
        if generator is None or not missing:
            continue
        for at, one in enumerate(chosen):
            copies = missing // len(chosen) + (at < missing % len(chosen))
            if copies:
                found += generator.variations(one, copies, 0, place, at)
    return found
