"""What an answer may state besides its payload: what follows from plan and ledger, and no more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from cloister.audit.asked_site import NAME, STUDY
from cloister.client.site import Site
from cloister.protocol.exchange import RoundReply, Status

# Fields of a ledger's entry that follow from the released bytes.
HASHES = frozenset({"prev", "sha256"})


def unexplained_fields(reply: RoundReply, site: Site, number: int) -> list[str]:
    """Returns the fields of an answer that differ from plan and ledger.

    Args:
        reply: The site's last answer.
        site: The site.
        number: The round.
    """
    sound = {
        "site": reply.site == NAME,
        "round": reply.round == number,
        "status": reply.status is Status.TRAINED,
        "epsilon": reply.epsilon == site.ledger.promise.epsilon,
        "head": reply.head == site.ledger.head.hash,
        "signature": reply.signature == site.ledger.sign(reply.statement(STUDY)),
        "delta": True,
    }
    return [field.name for field in fields(reply) if not sound.get(field.name, False)]


def entries_apart(
    ledgers: Sequence[Sequence[Mapping[str, Any]]], besides: Collection[str] = HASHES
) -> int:
    """Counts the entries that differ between sites in more than some fields.

    Args:
        ledgers: The entries of each site's ledger.
        besides: The fields that may differ.
    """
    if len({len(entries) for entries in ledgers}) > 1:
        return max(len(entries) for entries in ledgers)
    public = [
        {repr(sorted((k, v) for k, v in entry.items() if k not in besides)) for entry in same}
        for same in zip(*ledgers, strict=True)
    ]
    return sum(len(kinds) > 1 for kinds in public)
