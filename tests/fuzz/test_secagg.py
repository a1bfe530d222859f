"""Fuzzes secure aggregation: messages of the coordinator and of sites."""

from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.client.secure import EpochKeys
from cloister.secagg.epoch_keys import read_advertisement
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.messages import MaskedUpdate, Revealed
from cloister.secagg.participant import join, reveal
from cloister.secagg.query import Query, from_hex
from cloister.secagg.shamir import combine
from cloister.secagg.unmasking import unmasked_sum
from tests.secagg.test_protocol import START, Federation
from tests.support.fuzzing import (
    as_json,
    canonical_or_json,
    fuzz,
    hostile_bytes,
    must_read,
    odd,
    reshaped,
)

COUNT = 3


@cache
def federation() -> Federation:
    """Four members that masked round 1."""
    found = Federation()
    found.mask(1, {site: np.arange(COUNT) for site in found.terms.sites})
    return found


@cache
def question() -> dict[str, Any]:
    found = federation()
    adverts = {site: text.hex() for site, text in found.adverts.items()}
    whole = Query(
        epoch=1,
        members=found.terms.members,
        advertisements=adverts,
        survivors=found.terms.sites,
        signatures=adverts,
        boxes=adverts,
        adapter=START,
    )
    return {**asdict(whole), "survivors": list(whole.survivors)}


@fuzz
@given(st.data())
@example(None)
def test_questions(data: st.DataObject | None) -> None:
    """A question's bytes, and each thing that a site does with what it reads."""
    sound = question()
    payload = (
        b"[" * 100_000
        if data is None
        else data.draw(
            st.one_of(hostile_bytes(canonical_or_json(sound)), reshaped(sound).map(as_json))
        )
    )
    found = must_read(lambda: Query.from_bytes(payload), len(payload))
    if not isinstance(found, Query):
        return
    whole, site = federation(), "s00"

    def terms() -> EpochTerms:
        return EpochTerms(
            study="study", epoch=found.epoch, members=found.members, sharing=whole.terms.sharing
        )

    must_read(terms, len(payload))
    must_read(lambda: EpochKeys().advertise(terms(), site, lambda body: b""), len(payload))
    must_read(
        lambda: join(terms(), site, whole.private[site], from_hex(found.advertisements)),
        len(payload),
    )
    must_read(
        lambda: reveal(
            whole.members[site],
            1,
            found.adapter,
            from_hex(found.signatures),
            from_hex(found.boxes),
        ),
        len(payload),
    )


@fuzz
@given(st.binary(max_size=400), st.sampled_from(["s00", "s01", "nobody"]))
def test_what_sites_send(payload: bytes, site: str) -> None:
    terms = federation().terms
    must_read(lambda: read_advertisement(terms, site, payload))
    must_read(lambda: MaskedUpdate.from_bytes(terms, site, payload, COUNT))
    must_read(lambda: Revealed.from_bytes(terms, terms.sites[:3], payload))


@fuzz
@given(st.lists(st.binary(min_size=33, max_size=33), min_size=3, max_size=4), st.data())
@example([b"\xff" * 33] * 3, None)
def test_shares_that_are_none(shares: list[bytes], data: st.DataObject | None) -> None:
    """Of a right length and nothing else: a sum, which is another one, or a refusal."""
    must_read(lambda: combine(dict(enumerate(shares, start=1))))
    whole = federation()
    revealed = {
        site: Revealed(dict.fromkeys(whole.terms.sites, share), {})
        for site, share in zip(whole.terms.sites, shares, strict=False)
    }
    must_read(lambda: unmasked_sum(whole.terms, 1, whole.updates, revealed))


@fuzz
@given(st.dictionaries(st.text(max_size=3), odd.filter(lambda value: isinstance(value, str))))
def test_hex(values: dict[str, Any]) -> None:
    must_read(lambda: from_hex(values))
