"""The coordinator checks members' messages of secure aggregation."""

from functools import partial

import numpy as np

from cloister.ledger.signing import public_hex
from cloister.protocol.exchange import RoundReply, Status
from cloister.server.replies import ReplyTerms, read_replies
from cloister.server.secure import awaited_signature
from tests.secagg.test_protocol import START, Federation
from tests.server.test_replies import message


def test_a_signature_that_is_none_is_handed_to_nobody() -> None:
    """Of the set, by the member itself: no other bytes go into the question for shares."""
    whole = Federation()
    sites = whole.terms.sites
    whole.mask(1, {site: np.arange(3) for site in sites})
    signatures = whole.sign(1, sites, sites)
    sent = {
        **signatures,
        "s01": b"\x00" * 64,  # none
        "s02": signatures["s03"],  # another's
        "s03": b"x" * 50_000_000,  # as long as a message can be
    }
    answers = []
    for site in sites:
        said = RoundReply(site, 1, Status.TRAINED, sent[site], 0.0, "")
        signed = whole.ledgers[site].sign(said.statement("study"))
        answers.append((site, message({**said.fields(), "signature": signed})))
    keys = {site: public_hex(key) for site, key in whole.ledgers.items()}
    handed: dict[str, bytes] = {}
    replies = read_replies(
        answers,
        ReplyTerms("study", sites, keys),
        1,
        partial(awaited_signature, whole.terms, 1, START, sites),
        handed.__setitem__,
    )
    assert handed == {"s00": signatures["s00"]}
    assert replies.unfit == {"s01", "s02", "s03"}
