"""What the coordinator and a site say to each other: the only fields that a message may have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cloister.adapter.wire import digest
from cloister.bounds import LARGEST_INTEGER, MOST_NAME, listed, shortened
from cloister.errors import AdapterFormatError
from cloister.names import is_name

Fields = dict[str, Any]  # str, int, float and bytes only

# Of Ed25519 (RFC 8032).
SIGNATURE_BYTES = 64
# SHA-256 in hex, or nothing.
_HEAD = re.compile("(?:[0-9a-f]{64})?")
# The name under which requests and replies travel in a Flower message.
RECORD = "cloister"


class Status(StrEnum):
    """How a site answers: one of these words, because an error's text may hold a record's.

    Which word it is follows from the question, the site's own file, its approvals and its ledger,
    never from a record (`WORDS`).
    """

    READY = "ready"  # it takes part: accepted, base there, gradients proven; or: adapter is kept
    TRAINED = "trained"
    UNAPPROVED = "unapproved"  # accepted by policy; waits for somebody there to approve it
    REFUSED = "refused"  # by policy, or because the question does not fit; nothing was charged
    BUDGET = "budget"  # the site's budget is spent: it takes part no more
    SPENT = "spent"  # this round was charged and cut off: the site goes on with the next
    FAILED = "failed"  # said by older sites alone: read, and never counted


class Step(StrEnum):
    """What a site is asked for; ADVERTISE to REVEAL belong to secure aggregation."""

    PREPARE = "prepare"  # once a study, as round 0: whether it takes part; nothing is charged
    TRAIN = "train"
    ADVERTISE = "advertise"  # its public key of an epoch
    MASK = "mask"  # its masked update
    SIGN = "sign"  # its signature on whose updates are summed
    REVEAL = "reveal"  # its shares of what unmasks that sum
    CERTIFY = "certify"  # its signed certificate of the study, once, at the end
    DELIVER = "deliver"  # that it keeps the final adapter, which the question holds; no charge


# What a site may say to each question.
_TO_A_ROUND = frozenset({Status.TRAINED, Status.SPENT, Status.BUDGET, Status.REFUSED})
WORDS: Mapping[Step, frozenset[Status]] = dict.fromkeys(Step, _TO_A_ROUND) | {
    Step.PREPARE: frozenset({Status.READY, Status.BUDGET, Status.REFUSED, Status.UNAPPROVED}),
    Step.DELIVER: frozenset({Status.READY, Status.BUDGET, Status.REFUSED}),
}


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Asks a site whether it takes part, or for its part of one round.

    Attributes:
        study: Digest of the recipe that the coordinator runs; a site on another one refuses.
        round: From 1; 0 where the site is asked to prepare.
        adapter: The global adapter in wire format; empty where nothing is trained.
        step: What for.
        body: What secure aggregation needs beside it (`secagg.query`), or what is said of a
            delivered adapter (`protocol.delivery`); else empty.
        to: Name of the site that is asked; empty where nobody signs, as in a simulation.
        seen: `RoundReply.head` as the coordinator had it last from this site; empty where it had
            none. A site whose ledger does not hold that entry was rolled back, and answers nothing.
        signature: By the coordinator's key, on `statement`; empty where nobody signs.
    """

    study: str
    round: int
    adapter: bytes
    step: Step = Step.TRAIN
    body: bytes = b""
    to: str = ""
    seen: str = ""
    signature: bytes = b""

    def statement(self, document: str) -> bytes:
        """What the coordinator signs: all of the question, and the study's document.

        Args:
            document: The study as the site is sent it beside the question. Its hash is covered, so
                that no other text can be put beside a question that was signed.
        """
        said = self.fields() | {
            "adapter": digest(self.adapter),
            "body": digest(self.body),
            "document": digest(document.encode()),
        }
        del said["signature"]
        return b"cloister question\n" + json.dumps(said, sort_keys=True).encode()

    def fields(self) -> Fields:
        """Returns the message's named values."""
        return {
            "study": self.study,
            "round": self.round,
            "adapter": self.adapter,
            "step": self.step.value,
            "body": self.body,
            "to": self.to,
            "seen": self.seen,
            "signature": self.signature,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> RoundRequest:
        """Reads a message's named values, and checks each.

        Raises:
            AdapterFormatError: A field is missing, too many or of another type.
        """
        kinds = {
            "study": str,
            "round": int,
            "adapter": bytes,
            "step": str,
            "body": bytes,
            "to": str,
            "seen": str,
            "signature": bytes,
        }
        _check(fields, kinds)
        if fields["step"] not in set(Step):
            raise AdapterFormatError(f"request: unknown step {shortened(fields['step'])}")
        values = dict(fields) | {"step": Step(str(fields["step"]))}
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class RoundReply:
    """What a site sends back.

    Attributes:
        site: Its name.
        round: The round asked for.
        status: How it went.
        delta: The clipped, noised delta in wire format, or what else was asked for; empty unless
            `trained`.
        epsilon: ε that its ledger promises: of the whole plan at the plan's δ, or of the data
            set's budget at the budget's where more than one plan ever ran; ∞ without privacy. A
            function of plans and budget alone, the same in every round; the certificate says which
            of the two it is, with its δ and unit.
        head: SHA-256 of the release's entry in its ledger, which holds the hash of all before it:
            whoever keeps it can tell later whether the ledger was rewritten. Empty unless
            `trained`.
        signature: By the key of the site's ledger, on `statement`; empty where the site cannot
            sign. Flower authenticates a node's timestamps, not what it says.
    """

    site: str
    round: int
    status: Status
    delta: bytes
    epsilon: float
    head: str
    signature: bytes = b""

    def statement(self, study: str) -> bytes:
        """What the site signs: all of the reply, and the study that it is about."""
        said = self.fields() | {"delta": digest(self.delta), "study": study}
        del said["signature"]
        return b"cloister reply\n" + json.dumps(said, sort_keys=True).encode()

    def fields(self) -> Fields:
        """Returns the message's named values."""
        return {
            "site": self.site,
            "round": self.round,
            "status": self.status.value,
            "delta": self.delta,
            "epsilon": self.epsilon,
            "head": self.head,
            "signature": self.signature,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> RoundReply:
        """Reads a message's named values, and checks each.

        Raises:
            AdapterFormatError: A field is missing, too many, of another type or out of range.
        """
        kinds = {
            "site": str,
            "round": int,
            "status": str,
            "delta": bytes,
            "epsilon": float,
            "head": str,
            "signature": bytes,
        }
        _check(fields, kinds)
        if fields["status"] not in set(Status):
            raise AdapterFormatError(f"reply: unknown status {shortened(fields['status'])}")
        values = dict(fields) | {"status": Status(str(fields["status"]))}
        reply = cls(**values)  # type: ignore[arg-type]
        if not reply.epsilon >= 0:
            raise AdapterFormatError(f"reply: epsilon {reply.epsilon} is not from 0 up")
        if not (reply.site == "" or is_name(reply.site)) or not _HEAD.fullmatch(reply.head):
            raise AdapterFormatError("reply: a site or head that is none")
        if len(reply.signature) > SIGNATURE_BYTES:
            raise AdapterFormatError(f"reply: a signature of {len(reply.signature)} bytes")
        return reply


def _check(fields: Mapping[str, object], kinds: Mapping[str, type]) -> None:
    if set(fields) != set(kinds):
        given = listed(sorted(str(name) for name in fields))
        raise AdapterFormatError(
            f"message: fields {given or 'none'} given; {', '.join(sorted(kinds))} needed"
        )
    invalid = sorted(name for name, kind in kinds.items() if type(fields[name]) is not kind)
    if invalid:
        raise AdapterFormatError(f"message: {', '.join(invalid)} of another type than agreed")
    for name, value in fields.items():
        if isinstance(value, int) and not 0 <= value <= LARGEST_INTEGER:
            raise AdapterFormatError(f"message: {name} is {shortened(value)}")
        if isinstance(value, str) and len(value) > MOST_NAME:
            raise AdapterFormatError(f"message: {name} has {len(value)} characters")
