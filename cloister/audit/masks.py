"""Whether what sites send under masks shows nothing of their sums.

Once a sum is unmasked, the coordinator knows each site's own mask. What then still hides a site's
values are the masks that it shares with each other site: so these must be there, and be new in each
round. Its own mask must be new as well: the coordinator could have learnt it in a round before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cloister.audit.statistics import Check, exact_check, p_check
from cloister.errors import AdapterFormatError
from cloister.protocol.exchange import RoundReply, RoundRequest, Step
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import Words, mask
from cloister.secagg.messages import MaskedUpdate, Revealed
from cloister.secagg.shamir import combine

Totals = Sequence[NDArray[np.int64] | None]


@dataclass(frozen=True)
class MaskedRound:
    """What the coordinator has of one sum over all sites.

    Attributes:
        sent: By site, what it sent, [n].
        seeds: By site, the seed of its own mask.
    """

    sent: Mapping[str, Words]
    seeds: Mapping[str, bytes]

    def shared(self, site: str, bits: int) -> Words:
        """Returns what a site sent without its own mask, [n]."""
        return self.sent[site] - mask(self.seeds[site], len(self.sent[site]), bits)


def masked_rounds(
    heard: Sequence[tuple[RoundRequest, RoundReply]], terms: EpochTerms, values: int
) -> list[MaskedRound]:
    """Reads from the exchanges of secure sums what the coordinator has.

    Args:
        heard: Questions with their answers, in order.
        terms: Of the epoch: all sites are its members.
        values: Number of values of a sum.

    Returns:
        The rounds in which all sites sent values, and revealed their shares, in order.
    """
    sent: dict[int, dict[str, Words]] = {}
    shares: dict[int, dict[str, Revealed]] = {}
    for request, reply in heard:
        with suppress(AdapterFormatError):  # an answer of another form: its round is missing
            if request.step is Step.MASK:
                update = MaskedUpdate.from_bytes(terms, reply.site, reply.delta, values)
                sent.setdefault(request.round, {})[reply.site] = update.values
            elif request.step is Step.REVEAL:
                revealed = Revealed.from_bytes(terms, terms.sites, reply.delta)
                shares.setdefault(request.round, {})[reply.site] = revealed
    return [
        MaskedRound(
            masked,
            {
                site: combine(
                    {terms.number(by): said.seeds[site] for by, said in shares[number].items()}
                )
                for site in terms.sites
            },
        )
        for number, masked in sorted(sent.items())
        if len(masked) == len(shares.get(number, ())) == len(terms.sites)
    ]


def mask_checks(what: str, rounds: Sequence[MaskedRound], totals: Totals, bits: int) -> list[Check]:
    """Tests that masks are there, and new in each round.

    Args:
        what: What is summed, for the names of the checks.
        rounds: Of all rounds that were asked, if nothing is wrong.
        totals: What the coordinator unmasked in each round that was asked.
        bits: Bits of a value.
    """
    sites = sorted(rounds[0].sent) if rounds else []
    p_values = list[float]()
    # Site by site: the masks that two sites share are each other's negative.
    for site in sites:
        shared = [one.shared(site, bits) for one in rounds]
        changes = [after - before for before, after in pairwise(shared)]
        for words in ([one.sent[site] for one in rounds], shared, changes):
            if words:
                p_values += _uniform_p(np.concatenate(words), bits)
    seeds = [seed for one in rounds for seed in one.seeds.values()]
    wrong = len(seeds) - len(set(seeds)) + len(totals) - len(rounds)
    for one, total in zip(rounds, totals, strict=False):
        found = np.sum([one.shared(site, bits) for site in sites], axis=0, dtype=np.uint64)
        wrong += total is None or bool(
            (found - total.astype(np.uint64)).astype(f"u{bits // 8}").any()
        )
    return [
        p_check(
            f"masks of {what}",
            "what a site sends, that without its own mask, and how this changes from round to "
            "round, against uniform values (Kolmogorov-Smirnov, the largest)",
            p_values or [0.0],
        ),
        exact_check(
            f"own masks of {what}",
            "own masks that a site used before, and rounds whose sum they do not open",
            wrong,
        ),
    ]


def _uniform_p(words: Words, bits: int) -> list[float]:
    """The p-values of values being uniform modulo 2^bits: of all, and of the largest either way,
    which a handful of values show if they are small."""
    half = 2 ** (bits - 1)
    largest = np.abs(words.view(f"<i{bits // 8}").astype(np.int64)).max()
    return [
        float(stats.kstest((words + 0.5) / 2.0**bits, "uniform").pvalue),
        min(1.0, (float(largest) + 0.5) / half) ** len(words),
    ]
