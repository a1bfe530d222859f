"""A coordinator gets the sum of the agreed sites' updates, and nothing else."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from cloister.errors import AdapterFormatError, QuorumError, RefusedError
from cloister.ledger.signing import public_hex
from cloister.privacy.sharing import Sharing
from cloister.secagg.epoch_keys import advertise
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.keystream import derived, mask
from cloister.secagg.messages import MaskedUpdate, Revealed
from cloister.secagg.participant import Participant, join, mask_update, reveal, sign_set
from cloister.secagg.sealing import unseal
from cloister.secagg.shamir import PRIME, combine, split
from cloister.secagg.unmasking import unmasked_sum
from tests.support.examples import tries

# SHA-256 of the adapter that every site is given, and of another.
START, OTHER = "ab" * 32, "cd" * 32


@dataclass
class Federation:
    """All members of an epoch, and the coordinator between them."""

    size: int = 4
    missing: int = 1
    colluding: int = 0
    bits: int = 32
    epoch: int = 1
    ledgers: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    members: dict[str, Participant] = field(default_factory=dict)
    updates: dict[str, MaskedUpdate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledgers = {f"s{n:02d}": Ed25519PrivateKey.generate() for n in range(self.size)}
        self.terms = EpochTerms(
            study="study",
            epoch=self.epoch,
            members={site: public_hex(key) for site, key in self.ledgers.items()},
            sharing=Sharing(
                sites=self.size, missing=self.missing, colluding=self.colluding, bits=self.bits
            ),
        )
        self.private = {site: X25519PrivateKey.generate() for site in self.terms.sites}
        self.adverts = {
            site: advertise(self.terms, site, key, self.ledgers[site].sign)
            for site, key in self.private.items()
        }
        self.members = {
            site: join(self.terms, site, key, self.adverts) for site, key in self.private.items()
        }

    def mask(
        self,
        number: int,
        values: Mapping[str, NDArray[np.int64]],
        adapter: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Masks; every update travels as bytes; from `START`, but where `adapter` says another."""
        self.updates = {}
        for site, value in values.items():
            self.members[site], update = mask_update(
                self.members[site], number, adapter.get(site, START), value
            )
            payload = update.to_bytes()
            self.updates[site] = MaskedUpdate.from_bytes(self.terms, site, payload, len(value))

    def sign(
        self, number: int, survivors: Iterable[str], by: Iterable[str], adapter: str = START
    ) -> dict[str, bytes]:
        signatures = {}
        for site in by:
            self.members[site], signatures[site] = sign_set(
                self.members[site], number, adapter, survivors, self.ledgers[site].sign
            )
        return signatures

    def boxes(self, site: str, survivors: Iterable[str]) -> dict[str, bytes]:
        return {s: self.updates[s].boxes[site] for s in survivors if s != site}

    def reveal(
        self,
        number: int,
        survivors: Iterable[str],
        signatures: Mapping[str, bytes],
        by: Iterable[str],
        adapter: str = START,
    ) -> dict[str, Revealed]:
        return {
            site: reveal(
                self.members[site], number, adapter, signatures, self.boxes(site, survivors)
            )
            for site in by
        }

    def sum(
        self,
        number: int,
        values: Mapping[str, NDArray[np.int64]],
        signing: Iterable[str] = (),
        revealing: Iterable[str] = (),
    ) -> NDArray[np.int64]:
        """A whole round among those who have values."""
        self.mask(number, values)
        signatures = self.sign(number, values, signing or values)
        revealed = self.reveal(number, values, signatures, revealing or values)
        return unmasked_sum(self.terms, number, self.updates, revealed)


def values(
    sites: Iterable[str], count: int = 50, seed: int = 0, most: int = 10**6
) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {site: rng.integers(-most, most, count) for site in sites}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_sum_is_exact_whoever_drops_out_at_whatever_point(data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 6))
    missing = data.draw(st.integers(0, (size - 1) // 2))
    bits = data.draw(st.sampled_from([16, 32]))
    made = Federation(size, missing, bits=bits)
    for number in (1, 2):  # who was missing in the first round may be there in the second
        order = data.draw(st.permutations(made.terms.sites))
        at = sorted(data.draw(st.lists(st.integers(0, missing), min_size=3, max_size=3)))
        there, signing, revealing = (sorted(order[gone:]) for gone in at)
        come = values(there, seed=number, most=2**13 // size)
        found = made.sum(number, come, signing, revealing)
        assert found.tolist() == sum(come.values()).tolist()  # type: ignore[union-attr]


def test_one_more_missing_than_agreed_ends_the_round_at_every_point() -> None:
    made = Federation(5, 2)
    sites = made.terms.sites
    few = sites[:2]
    made.mask(1, values(few))
    with pytest.raises(QuorumError, match=r"2 of 5 sites sent an update, 3 are needed"):
        unmasked_sum(made.terms, 1, made.updates, {})
    with pytest.raises(RefusedError, match="at least 3 are needed"):
        made.sign(1, few, few)
    made.mask(2, values(sites))
    signatures = made.sign(2, sites, few)
    with pytest.raises(RefusedError, match="2 sites signed this sum, 3 are needed"):
        made.reveal(2, sites, signatures, few)
    signatures = made.sign(2, sites, sites[:3])
    revealed = made.reveal(2, sites, signatures, few)
    with pytest.raises(QuorumError, match=r"2 of 5 sites revealed"):
        unmasked_sum(made.terms, 2, made.updates, revealed)
    forged = {**revealed, sites[2]: _zeros(revealed[few[0]])}  # two shares tell nothing
    spoiled = unmasked_sum(made.terms, 2, made.updates, forged)
    assert not np.isin(spoiled, sum(values(sites).values())).any()


def _zeros(like: Revealed) -> Revealed:
    return Revealed({s: bytes(33) for s in like.seeds}, {pair: bytes(33) for pair in like.pairs})


@pytest.mark.parametrize("value", [0, 12345])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_single_masked_update_is_uniform(value: int, bits: int) -> None:
    """χ² over its bytes, at 1 − 10⁻⁶; the update itself is one constant."""
    made = Federation(3, 1, bits=bits)
    made.mask(1, {site: np.full(40_000, value) for site in made.terms.sites})
    for update in made.updates.values():
        assert _chi2(update.values.tobytes()) < chi2.isf(1e-6, 255)
    assert _chi2(np.full(40_000, value, dtype="<u4").tobytes()) > chi2.isf(1e-6, 255)


def _chi2(stream: bytes) -> float:
    counts = np.bincount(np.frombuffer(stream, np.uint8), minlength=256)
    expected = len(stream) / 256
    return float(((counts - expected) ** 2 / expected).sum())


def test_what_all_others_know_does_not_unmask_an_update() -> None:
    """With every pairwise mask taken out, its own is left; with that out, the pairwise ones are."""
    made = Federation(3, 1)
    sites = made.terms.sites
    come = {site: np.zeros(20_000, dtype=np.int64) for site in sites}
    made.mask(1, come)
    alone = made.updates["s00"].values
    for peer in sites[1:]:
        context = made.terms.context("mask", 1, START, "s00", peer)
        seed = derived(made.members["s00"].secrets[peer], context)
        alone = alone - mask(seed, 20_000, 32)
    assert _chi2(alone.tobytes()) < chi2.isf(1e-6, 255)
    revealed = made.reveal(1, sites, made.sign(1, sites, sites), sites)
    own = combine({n: revealed[site].seeds["s00"] for n, site in enumerate(sites, 1)})
    assert (alone - mask(own, 20_000, 32) == 0).all()  # both together do: this test can fail
    paired = made.updates["s00"].values - mask(own, 20_000, 32)
    assert _chi2(paired.tobytes()) < chi2.isf(1e-6, 255)


def test_every_bit_of_a_seed_matters() -> None:
    seed = os.urandom(32)
    reference = np.unpackbits(mask(seed, 512, 32).view(np.uint8))
    for bit in range(256):
        flipped = bytearray(seed)
        flipped[bit // 8] ^= 1 << bit % 8
        apart = (np.unpackbits(mask(bytes(flipped), 512, 32).view(np.uint8)) != reference).mean()
        assert 0.45 < apart < 0.55


def test_masks_differ_between_rounds_adapters_pairs_epochs_and_studies() -> None:
    secret = bytes(range(32))
    first = Federation().terms
    contexts = [
        terms.context("mask", number, adapter, "a", peer)
        for terms in (first, replace(first, epoch=2), replace(first, study="other"))
        for number in (1, 2)
        for adapter in (START, OTHER)
        for peer in ("b", "c")
    ]
    assert len({derived(secret, context) for context in contexts}) == len(contexts) == 24


def test_a_site_that_masks_twice_draws_another_seed() -> None:
    made = Federation()
    before = made.members["s00"]
    _, one = mask_update(before, 1, START, np.zeros(100, dtype=np.int64))
    _, other = mask_update(before, 1, START, np.zeros(100, dtype=np.int64))
    assert (one.values != other.values).mean() > 0.9


def test_a_round_is_masked_once() -> None:
    made = Federation()
    made.mask(3, values(made.terms.sites))
    for number in (3, 2):
        with pytest.raises(RefusedError, match="masked once"):
            mask_update(made.members["s00"], number, START, np.zeros(2, dtype=np.int64))


def test_nobody_signs_two_sets_or_one_without_itself() -> None:
    made = Federation(5, 2)
    sites = made.terms.sites
    made.mask(1, values(sites))
    made.sign(1, sites, ["s00"])
    made.sign(1, sites, ["s00"])  # asked again
    with pytest.raises(RefusedError, match="another set"):
        made.sign(1, sites[:4], ["s00"])
    with pytest.raises(RefusedError, match="does not include"):
        made.sign(1, sites[:4], ["s04"])
    with pytest.raises(RefusedError, match="does not include"):
        made.sign(1, [*sites, "stranger"], ["s01"])
    with pytest.raises(RefusedError, match="is not the round"):
        made.sign(2, sites, ["s01"])
    with pytest.raises(RefusedError, match="no set"):
        made.reveal(1, sites, {}, ["s02"])


def test_a_coordinator_that_tells_members_different_sets_gets_nothing() -> None:
    """Whatever it tells whom: no two sets are both revealed for by a threshold of honest sites."""
    made = Federation(5, 1)  # threshold 4: any two sets share an honest signer
    sites = made.terms.sites
    made.mask(1, values(sites))
    one = made.sign(1, sites, sites[:2])
    other = made.sign(1, sites[:2] + sites[3:], sites[3:])
    with pytest.raises(RefusedError, match="2 sites signed"):
        made.reveal(1, sites, {**one, **other}, sites[:2])
    with pytest.raises(RefusedError, match="2 sites signed"):
        made.reveal(1, sites, {**one, **other}, sites[3:])


def test_a_site_that_is_given_another_adapter_than_the_rest_is_in_no_sum() -> None:
    """What a coordinator would learn of one site that starts elsewhere, it does not get."""
    made = Federation(5, 1)
    sites = made.terms.sites
    apart, rest = sites[4], sites[:4]
    made.mask(1, values(sites), {apart: OTHER})
    # It tells each what that one started from: all of them sign, and nobody reveals.
    signatures = {**made.sign(1, sites, rest), **made.sign(1, sites, [apart], OTHER)}
    for site in rest:
        with pytest.raises(RefusedError, match="s04 were not sealed for this round and"):
            made.reveal(1, sites, signatures, [site])
    with pytest.raises(RefusedError, match="1 sites signed this sum"):
        made.reveal(1, sites, signatures, [apart], OTHER)
    # Where none of that was checked, the masks between them would not cancel.
    unchecked = {
        site: Revealed({about: shares(made, about, site) for about in sites}, {}) for site in sites
    }
    found = unmasked_sum(made.terms, 1, made.updates, unchecked)
    truth = sum(values(sites).values())
    assert (found != truth).mean() > 0.9


def shares(made: Federation, about: str, by: str) -> bytes:
    """A member's share of another's own mask, opened without asking whether it should be."""
    member, other = made.members[by], made.members[about]
    if about == by:
        box = list(member.own_box)
    else:
        box = unseal(
            made.terms,
            made.updates[about].boxes[by],
            member.secrets[about],
            about,
            by,
            1,
            other.adapter,
        )
    return box[made.terms.sites.index(about)]


@pytest.mark.parametrize("other", [OTHER, "", START[:-1]])
def test_a_sum_from_another_adapter_than_its_own_is_refused(other: str) -> None:
    made = Federation(4, 1)
    sites = made.terms.sites
    made.mask(1, values(sites))
    with pytest.raises(RefusedError, match="takes part in no other sum"):
        made.sign(1, sites, ["s00"], other)
    signatures = made.sign(1, sites, sites)
    with pytest.raises(RefusedError, match="takes part in no other sum"):
        made.reveal(1, sites, signatures, ["s00"], other)


def test_a_signature_on_a_sum_holds_for_one_adapter() -> None:
    one, other = Federation(3, 0), Federation(3, 0)
    other.ledgers, other.terms, other.members = one.ledgers, one.terms, dict(one.members)
    sites = one.terms.sites
    one.mask(1, values(sites))
    other.mask(1, values(sites), dict.fromkeys(sites, OTHER))
    signatures = other.sign(1, sites, sites, OTHER)
    one.sign(1, sites, sites)
    with pytest.raises(RefusedError, match="0 sites signed this sum"):
        one.reveal(1, sites, signatures, ["s00"])


def test_one_kind_of_share_is_revealed_of_each_member() -> None:
    made = Federation(5, 2)
    sites = made.terms.sites
    made.mask(1, values(sites))  # s04's update came, and the coordinator says it did not
    there = sites[:4]
    signatures = made.sign(1, there, there)
    for said in made.reveal(1, there, signatures, there).values():
        assert set(said.seeds) == set(there)
        assert set(said.pairs) == {(site, "s04") for site in there}
    with pytest.raises(RefusedError, match="not those of the sites in this sum"):
        reveal(made.members["s00"], 1, START, signatures, made.boxes("s00", sites))


def test_shares_are_for_one_receiver_round_and_epoch() -> None:
    made = Federation(4, 1)
    sites = made.terms.sites
    made.mask(1, values(sites))
    old = dict(made.updates)
    made.mask(2, values(sites))
    signatures = made.sign(2, sites, sites)
    good = made.boxes("s00", sites)
    changed = bytearray(good["s01"])
    changed[20] ^= 1
    for what, box in {
        "of another round": old["s01"].boxes["s00"],
        "for another receiver": made.updates["s01"].boxes["s02"],
        "of another sender": made.updates["s02"].boxes["s00"],
        "changed": bytes(changed),
        "empty": b"",
    }.items():
        with pytest.raises(RefusedError, match="not sealed for this round"):
            reveal(made.members["s00"], 2, START, signatures, {**good, "s01": box})
        assert what


def test_advertisements_are_signed_by_the_members_ledgers() -> None:
    made = Federation()
    terms, site, private = made.terms, "s00", made.private["s00"]
    stranger = Ed25519PrivateKey.generate()
    other = X25519PrivateKey.generate()
    forged = advertise(terms, "s01", other, stranger.sign)
    replayed = advertise(replace(terms, epoch=2), "s01", other, made.ledgers["s01"].sign)
    copied = advertise(terms, "s01", private, made.ledgers["s01"].sign)
    flat = bytes(32) + made.ledgers["s01"].sign(
        terms.context("advertisement", "s01", bytes(32).hex())
    )
    for advert, why in (
        (forged, "is not signed by"),
        (replayed, "is not signed by"),
        (copied, "same key"),
        (flat, "the public key gives no secret"),
    ):
        with pytest.raises(RefusedError, match=why):
            join(terms, site, private, {**made.adverts, "s01": advert})
    with pytest.raises(RefusedError, match="own advertisement"):
        join(terms, site, other, made.adverts)
    with pytest.raises(RefusedError, match="not those"):
        join(terms, site, private, {"s00": made.adverts["s00"]})
    with pytest.raises(AdapterFormatError, match="95 bytes"):
        join(terms, site, private, {**made.adverts, "s01": made.adverts["s01"][:-1]})


@pytest.mark.parametrize(
    ("size", "missing", "colluding"), [(2, 0, 0), (3, 1, 1), (4, 2, 0), (6, 2, 2), (3, -1, 0)]
)
def test_terms_that_protect_nobody_are_refused(size: int, missing: int, colluding: int) -> None:
    with pytest.raises(RefusedError, match="secure aggregation"):
        Federation(size, missing, colluding)


def test_nothing_secret_is_shown() -> None:
    made = Federation()
    made.mask(1, values(made.terms.sites))
    signatures = made.sign(1, made.terms.sites, made.terms.sites)
    revealed = made.reveal(1, made.terms.sites, signatures, made.terms.sites)
    member = made.members["s00"]
    shown = repr(member) + repr(revealed["s00"])
    for secret in (*member.secrets.values(), *member.own_box, *revealed["s00"].seeds.values()):
        assert repr(secret)[2:-1] not in shown


def test_bytes_on_the_wire() -> None:
    for bits, most in ((32, 4.2), (16, 2.2)):
        made = Federation(10, 3, bits=bits)
        _, update = mask_update(made.members["s00"], 1, START, np.zeros(20_000, dtype=np.int64))
        payload = update.to_bytes()
        assert len(payload) / 20_000 <= most
        for wrong in (payload[:-1], payload + b"\0"):
            with pytest.raises(AdapterFormatError, match="masked update"):
                MaskedUpdate.from_bytes(made.terms, "s00", wrong, 20_000)


@settings(max_examples=tries(50), deadline=None)
@given(st.binary(min_size=32, max_size=32), st.data())
def test_a_threshold_of_shares_gives_the_secret(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    threshold = data.draw(st.integers(1, count))
    shares = dict(enumerate(split(secret, threshold, count, os.urandom), 1))
    chosen = data.draw(st.permutations(sorted(shares)))
    assert combine({n: shares[n] for n in chosen[:threshold]}) == secret
    assert combine(shares) == secret


def test_fewer_shares_fit_every_secret_equally() -> None:
    """For T − 1 shares and any secret there is one polynomial: they tell nothing of it."""
    shares = dict(enumerate(split(bytes(32), 3, 5, os.urandom), 1))
    two = {n: int.from_bytes(shares[n], "big") for n in (1, 2)}

    def fitting(secret: int) -> dict[int, bytes]:
        third = (secret - 3 * two[1] + 3 * two[2]) % PRIME
        return {1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}

    for secret in (1, 2**255, 2**256 - 1):
        assert combine(fitting(secret)) == secret.to_bytes(32, "big")
    with pytest.raises(AdapterFormatError, match="one secret"):
        combine(fitting(2**256 + 5))


def test_shares_of_another_size_are_refused() -> None:
    with pytest.raises(AdapterFormatError, match="32 bytes"):
        combine({1: bytes(32)})
