"""A changed entry breaks the chain, without a disk."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.errors import LedgerError
from cloister.ledger.chain import ORIGIN, Entry, Head, check_anchor, follow, sign
from cloister.ledger.signing import SMALL_ORDER, is_signed, public_hex
from tests.support.examples import tries

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = public_hex(KEY)


def chain(length: int, key: Ed25519PrivateKey = KEY) -> list[Entry]:
    entries: list[Entry] = []
    head = None
    for number in range(length):
        entries.append(sign({"kind": "release", "said": f"ε {number}"}, head, key))
        head = Head(number, entries[-1].hash)
    return entries


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=5)


@given(objects, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=tries(200))
def test_canonical_json_knows_no_order_and_is_its_own_canonical_form(
    fields: dict[str, Any], random: Any
) -> None:
    try:
        text = canonical(fields)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    assert canonical(dict(shuffled)) == text
    assert canonical(json.loads(text)) == text
    assert b"\n" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_canonical_json_has_no_number_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"epsilon": value})


def test_canonical_json_stays_as_it_was_written_by_the_first_version() -> None:
    fields = {"z": 1, "a": [1e-5, 0.1, 2e20, None, True], "é": "ε"}
    assert canonical(fields) == '{"a":[1e-05,0.1,2e+20,null,true],"z":1,"é":"ε"}'.encode()
    assert follow([sign({}, None, KEY)], None, PUBLIC) == Head(
        0, "882481530bc56c7f4ef35f75c44341de50d9427f788264967b7e7196db119a83"
    )


def test_a_whole_chain_is_followed_at_once_or_in_parts() -> None:
    entries = chain(6)
    end = follow(entries, None, PUBLIC)
    assert end == Head(5, entries[5].hash)
    for cut in range(7):
        assert follow(entries[cut:], follow(entries[:cut], None, PUBLIC), PUBLIC) == end
    assert follow([], None, PUBLIC) is None


@given(st.data())
@settings(deadline=None, max_examples=tries(300))
def test_no_single_change_is_followed(data: st.DataObject) -> None:
    entries = chain(5)
    spot = data.draw(st.integers(0, 4))
    one = entries[spot]
    how = data.draw(st.sampled_from(["body", "signature", "remove", "insert", "swap", "key"]))
    if how in ("body", "signature"):
        old = getattr(one, how)
        place, bits = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(1, 255))
        new = old[:place] + bytes([old[place] ^ bits]) + old[place + 1 :]
        entries[spot] = replace(one, **{how: new})
    elif how == "remove":
        if spot == 4:
            return  # a chain that is cut at its end is a chain: only an anchor tells
        del entries[spot]
    elif how == "insert":
        entries.insert(spot, data.draw(st.sampled_from(chain(5))))
    elif how == "swap":
        other = data.draw(st.integers(0, 4).filter(lambda number: number != spot))
        entries[spot], entries[other] = entries[other], entries[spot]
    else:
        entries[spot] = replace(one, signature=OTHER.sign(one.body))
    with pytest.raises(LedgerError, match=r"entry \d: (damaged|not signed)"):
        follow(entries, None, PUBLIC)


def test_a_rewritten_tail_needs_the_key() -> None:
    entries, forged = chain(2), chain(2)
    for number in (2, 3):
        head = Head(number - 1, forged[-1].hash)
        forged.append(sign({"kind": "release", "said": "less"}, head, OTHER))
    assert follow(forged, None, None) is not None  # its hashes are right
    with pytest.raises(LedgerError, match="entry 2: not signed by the key"):
        follow(forged, None, PUBLIC)
    assert follow(entries, None, PUBLIC) == Head(1, entries[1].hash)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'{"seq":0}',
        b'{"prev":"' + ORIGIN.encode() + b'","seq":0} ',
        b'{"seq":0,"prev":"' + ORIGIN.encode() + b'"}',
        b'{"prev":"' + ORIGIN.encode() + b'","seq":0,"seq":0}',
        b'{"a":1e999,"prev":"' + ORIGIN.encode() + b'","seq":0}',
        b'{"a":"\\ud800","prev":"' + ORIGIN.encode() + b'","seq":0}',
        ('{"prev":"' + ORIGIN + '","seq":0}').encode("utf-16"),
        b"[" * 100_000,
        b"1" * 10_000,
    ],
    ids=range(14),
)
def test_what_is_not_the_canonical_form_of_an_entry_is_damaged(body: bytes) -> None:
    with pytest.raises(LedgerError, match="entry 0: damaged"):
        follow([Entry(body, KEY.sign(body))], None, PUBLIC)


@pytest.mark.parametrize("key", ["", "zz", PUBLIC[:-2], PUBLIC + "00", "0" * 64])
def test_a_key_that_is_none_signs_nothing(key: str) -> None:
    assert not is_signed(b"body", KEY.sign(b"body"), key)
    assert not is_signed(b"body", b"", PUBLIC)


def test_an_anchor_holds_in_every_longer_chain_and_in_no_other() -> None:
    entries = chain(5)
    for number in range(5):
        head = Head(number, entries[number].hash)
        for length in range(1, 6):
            if length > number:
                check_anchor(entries[:length], head, "it")
            else:
                with pytest.raises(
                    LedgerError, match=r"it: entry . was seen before and is missing"
                ):
                    check_anchor(entries[:length], head, "it")
        with pytest.raises(LedgerError):
            check_anchor(chain(5, OTHER)[:number], head, "it")


def test_chains_that_part_reject_each_other_s_anchors() -> None:
    start = chain(3)
    head = Head(2, start[-1].hash)
    left = [*start, sign({"said": "left"}, head, KEY)]
    right = [*start, sign({"said": "right"}, head, KEY)]
    for mine, theirs in ((left, right), (right, left)):
        check_anchor(mine, head, "it")
        with pytest.raises(LedgerError):
            check_anchor(mine, Head(3, theirs[3].hash), "it")


@pytest.mark.parametrize("seq", [-1, -5, -(10**30), 10**30])
def test_an_anchor_s_number_is_one_of_the_chain_s(seq: int) -> None:
    entries = chain(3)
    with pytest.raises(LedgerError):
        check_anchor(entries, Head(seq, entries[-1].hash), "it")


# --- keys of small order ---------------------------------------------------------------------

PRIME = 2**255 - 19
CURVE = (-121665 * pow(121666, -1, PRIME)) % PRIME
Point = tuple[int, int]


def decompressed(y: int) -> Point:
    """A point of Ed25519 by its y (RFC 8032, section 5.1.3)."""
    square = (y * y - 1) * pow(CURVE * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    assert (x * x - square) % PRIME == 0
    return x, y % PRIME


def doubled(point: Point) -> Point:
    x, y = point
    k = CURVE * x * x * y * y % PRIME
    return 2 * x * y * pow(1 + k, -1, PRIME) % PRIME, (y * y + x * x) * pow(
        1 - k, -1, PRIME
    ) % PRIME


def test_the_list_of_small_orders_is_whole() -> None:
    """Eight times each is the neutral element; there are five such y, two in a second encoding."""
    found = set()
    for text in SMALL_ORDER:
        y = int.from_bytes(bytes.fromhex(text), "little")
        point = decompressed(y)
        assert doubled(doubled(doubled(point))) == (0, 1)
        found.add(y % PRIME)
    assert len(found) == 5
    assert {y + PRIME for y in found if y + PRIME < 2**255} <= {
        int.from_bytes(bytes.fromhex(text), "little") for text in SMALL_ORDER
    }


@pytest.mark.parametrize("sign", [0x00, 0x80])
@pytest.mark.parametrize("text", sorted(SMALL_ORDER))
def test_no_signature_holds_under_a_key_of_small_order(text: str, sign: int) -> None:
    """R = neutral, S = 0 would verify for any text under the neutral element as key."""
    key = bytearray(bytes.fromhex(text))
    key[-1] |= sign
    forged = (1).to_bytes(32, "little") + bytes(32)
    assert not any(is_signed(bytes([n]), forged, key.hex()) for n in range(32))
