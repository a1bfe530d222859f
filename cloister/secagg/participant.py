"""A site's side: it masks one update per round, signs the set of summed sites, and reveals shares.

    y_i = x_i + PRG(b_i) + Σ_{j > i} PRG(s_ij) − Σ_{j < i} PRG(s_ij)   mod 2^bits

Bonawitz et al. 2017, doi:10.1145/3133956.3133982, with a fresh b_i each round and an s_ij that is
derived for each round from the epoch's X25519 keys. In the sum of all members the s_ij cancel. A
site shares its b_i and its s_ij of the round, and never a key: so a site that is missing in one
round can take part in the next, and recovered seeds open no other round.

Guarantees:
    A site masks once per round, with a new seed. It signs one set of sites per round, which has at
    least the threshold's size and includes the site. It reveals shares only for a set that at least
    the threshold's number of members signed, and for each member only one kind: of its own mask, or
    of its masks with others. The hash of the round's global adapter is part of the pairwise masks,
    of the seal of the shares, and of the signed statement. So a coordinator that gives one site
    another adapter gets no sum with that site's update: the others cannot open its shares and
    reveal nothing, and the masks between them would not cancel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from cloister.errors import RefusedError
from cloister.ledger.signing import is_signed
from cloister.secagg.epoch_keys import agree, read_advertisement
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import SEED_BYTES, Words, derived, mask, word
from cloister.secagg.messages import MaskedUpdate, Revealed
from cloister.secagg.sealing import seal, unseal
from cloister.secagg.shamir import Draw, split


@dataclass(frozen=True)
class Participant:
    """A site's state in an epoch; in memory only.

    Attributes:
        terms: The epoch's.
        site: Its name.
        secrets: The secret shared with each other member, by site.
        masked: The last round that it masked; 0 before the first.
        own_box: Its own shares of that round's seeds.
        signed: The set of sites that it signed in that round.
        adapter: SHA-256 of the global adapter that the round started from, in hex.
    """

    terms: EpochTerms
    site: str
    secrets: Mapping[str, bytes] = field(repr=False)
    masked: int = 0
    own_box: tuple[bytes, ...] = field(default=(), repr=False)
    signed: frozenset[str] | None = None
    adapter: str = ""


def join(
    terms: EpochTerms, site: str, private: X25519PrivateKey, advertisements: Mapping[str, bytes]
) -> Participant:
    """Checks all advertisements and agrees on secrets.

    Args:
        terms: The epoch's.
        site: Its name.
        private: The key whose public half it advertised.
        advertisements: The advertisements of all members, by site.

    Raises:
        RefusedError: An advertisement is missing or not signed, the site's own was replaced, or two
            have the same key.
        AdapterFormatError: An advertisement has another length.
    """
    if set(advertisements) != set(terms.members):
        raise RefusedError("the advertisements are not those of the epoch's members")
    keys = {s: read_advertisement(terms, s, advertisements[s]) for s in terms.sites}
    # With a replaced key the others would agree on secrets with somebody else in this site's name.
    if keys[site] != private.public_key().public_bytes_raw():
        raise RefusedError(f"{site}: its own advertisement was replaced")
    # Two members with one key would be one party that counts twice towards the threshold.
    if len(set(keys.values())) < len(keys):
        raise RefusedError("two advertisements hold the same key")
    secrets = {peer: agree(private, key) for peer, key in keys.items() if peer != site}
    return Participant(terms, site, secrets)


def mask_update(
    member: Participant,
    number: int,
    adapter: str,
    values: NDArray[np.int64],
    draw: Draw = os.urandom,
) -> tuple[Participant, MaskedUpdate]:
    """Masks a round's update.

    Args:
        member: The state before.
        number: The round, from 1; above every round that it masked.
        adapter: SHA-256 of the global adapter that the update starts from, in hex.
        values: The noised update on the grid [n]; taken modulo 2^bits.
        draw: Returns unpredictable bytes.

    Raises:
        RefusedError: The round was masked before. A second masked update of one round would let the
            coordinator combine the two.
    """
    if number <= member.masked:
        raise RefusedError(f"round {number} was masked before: an update is masked once")
    terms, site, count = member.terms, member.site, len(values)
    # The site's own mask is needed because the coordinator may call a late update missing: the
    # others then reveal the pairwise masks of this site, and only its own mask still hides the
    # update.
    seeds = {site: draw(SEED_BYTES)}
    for peer, secret in member.secrets.items():
        context = terms.context("mask", number, adapter, *sorted((site, peer)))
        seeds[peer] = derived(secret, context)
    masked = values.astype(np.uint64).astype(word(terms.bits))
    masked = masked + mask(seeds[site], count, terms.bits)
    for peer in member.secrets:
        masked = masked + pair_mask(site, peer, seeds[peer], count, terms.bits)
    size = len(terms.sites)
    # Every seed is shared before it is known which sites will be missing: a site that is missing
    # later cannot be asked for it.
    shares = {peer: split(seeds[peer], terms.threshold, size, draw) for peer in terms.sites}
    boxes = {
        peer: tuple(shares[about][place] for about in terms.sites)
        for place, peer in enumerate(terms.sites)
    }
    sealed = {
        peer: seal(terms, boxes[peer], secret, site, peer, number, adapter, draw)
        for peer, secret in member.secrets.items()
    }
    after = replace(member, masked=number, own_box=boxes[site], signed=None, adapter=adapter)
    return after, MaskedUpdate(masked, sealed)


def pair_mask(site: str, peer: str, seed: bytes, count: int, bits: int) -> Words:
    """Returns the mask that a site adds for a peer; the peer adds its negative."""
    stream = mask(seed, count, bits)
    return stream if site < peer else np.negative(stream)


def sign_set(
    member: Participant,
    number: int,
    adapter: str,
    survivors: Iterable[str],
    sign: Callable[[bytes], bytes],
) -> tuple[Participant, bytes]:
    """Signs the set of sites whose updates are summed in a round.

    Args:
        member: The state after masking.
        number: The round.
        adapter: SHA-256 of the round's global adapter, as the coordinator states it.
        survivors: The sites whose updates are summed.
        sign: Signs with the key of the site's ledger.

    Raises:
        RefusedError: The site masked another round last, or started from another adapter; it signed
            another set, is not in this one, or the set is too small.
    """
    terms, there = member.terms, frozenset(survivors)
    if number != member.masked:
        raise RefusedError(f"round {number} is not the round that was masked last")
    _check_adapter(member, adapter)
    # With signatures on two sets, a coordinator could subtract two sums and see a single update.
    if member.signed not in (None, there):
        raise RefusedError(f"round {number}: another set of sites was signed")
    if not there <= set(terms.members) or member.site not in there:
        raise RefusedError("the sum does not include this site")
    if len(there) < terms.threshold:
        raise RefusedError(
            f"a sum over {len(there)} sites; at least {terms.threshold} are needed: nothing is "
            "revealed"
        )
    return replace(member, signed=there), sign(_statement(terms, number, adapter, there))


def has_signed(
    terms: EpochTerms,
    number: int,
    adapter: str,
    survivors: Iterable[str],
    site: str,
    signature: bytes,
) -> bool:
    """Returns whether a signature is a member's, on the set of sites that a round sums.

    Args:
        terms: The epoch's terms.
        number: The round.
        adapter: SHA-256 of the round's global adapter.
        survivors: The sites whose updates are summed.
        site: The member.
        signature: The signature that it sent.
    """
    text = _statement(terms, number, adapter, frozenset(survivors))
    return is_signed(text, signature, terms.members[site])


def reveal(
    member: Participant,
    number: int,
    adapter: str,
    signatures: Mapping[str, bytes],
    boxes: Mapping[str, bytes],
) -> Revealed:
    """Reveals this site's shares for the set that it signed.

    Args:
        member: The state after signing.
        number: The round.
        adapter: SHA-256 of the round's global adapter, as the coordinator states it.
        signatures: Signatures of members on the same set, by site.
        boxes: The sealed shares for this site from each other site in the set.

    Raises:
        RefusedError: The site signed no set; it, or another site of the set, started from another
            adapter; too few others signed the same set; or the boxes were not sealed for it.
    """
    terms, there = member.terms, member.signed
    if there is None or number != member.masked:
        raise RefusedError(f"round {number}: no set of sites was signed")
    _check_adapter(member, adapter)
    text = _statement(terms, number, adapter, there)
    good = {s for s in there & set(signatures) if is_signed(text, signatures[s], terms.members[s])}
    if len(good) < terms.threshold:
        raise RefusedError(
            f"round {number}: {len(good)} sites signed this sum, {terms.threshold} are needed: "
            "nothing is revealed"
        )
    if set(boxes) != there - {member.site}:
        raise RefusedError("the shares are not those of the sites in this sum")
    opened: dict[str, list[bytes]] = {member.site: list(member.own_box)}
    for sender, sealed in boxes.items():
        opened[sender] = unseal(
            terms, sealed, member.secrets[sender], sender, member.site, number, adapter
        )
    place = {site: at for at, site in enumerate(terms.sites)}
    gone = set(terms.members) - there
    # Of a site in the set only its own mask is revealed, of a missing site only masks with others:
    # both kinds together would unmask a single update.
    return Revealed(
        {site: opened[site][place[site]] for site in there},
        {(site, lost): opened[site][place[lost]] for site in there for lost in gone},
    )


def _check_adapter(member: Participant, adapter: str) -> None:
    if adapter != member.adapter:
        raise RefusedError(
            f"round {member.masked}: the sum is of updates from the adapter {adapter[:12]}; this "
            f"site got {member.adapter[:12]}, and takes part in no other sum"
        )


def _statement(terms: EpochTerms, number: int, adapter: str, survivors: frozenset[str]) -> bytes:
    """Returns the statement that a sum's members sign: the round, its adapter and the sites."""
    return terms.context("sum", number, adapter, sorted(survivors))
