"""The messages between the coordinator and a site: the only fields that they may have."""

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

# Bytes of an Ed25519 signature (RFC 8032).
SIGNATURE_BYTES = 64
# SHA-256 in hex, or an empty text.
_HEAD = re.compile("(?:[0-9a-f]{64})?")
# The name under which requests and replies travel in a Flower message.
RECORD = "cloister"


class Status(StrEnum):
    """A site's answer: only one of these words, because an error's text may quote a record.

    The word depends on the question, the site's own file, its approvals and its ledger, never on a
    record (`WORDS`).
    """

    READY = "ready"  # accepted, base found, gradients proven; or: the adapter is kept
    TRAINED = "trained"
    UNAPPROVED = "unapproved"  # accepted by policy; a person at the site must approve it
    REFUSED = "refused"  # by policy, or because the question does not fit; nothing was charged
    BUDGET = "budget"  # the site's budget is spent: it takes no further part
    SPENT = "spent"  # this round was charged but not finished: the site continues with the next
    FAILED = "failed"  # from older versions of a site only: read, never counted


class Step(StrEnum):
    """The request to a site; ADVERTISE to REVEAL belong to secure aggregation."""

    PREPARE = "prepare"  # once per study, as round 0: whether it takes part; nothing is charged
    TRAIN = "train"
    ADVERTISE = "advertise"  # its public key of an epoch
    MASK = "mask"  # its masked update, statistics of an evaluation, or votes
    SIGN = "sign"  # its signature on the list of sites whose updates are summed
    REVEAL = "reveal"  # its shares of the secrets that unmask that sum
    CERTIFY = "certify"  # its signed certificate of the study, once, at the end
    EVALUATE = "evaluate"  # its noised scores on held-out units, with noise of its own
    VOTE = "vote"  # its noised votes for the candidates in the question, with noise of its own
    DELIVER = "deliver"  # to keep the final adapter, which is in the question; nothing is charged


# The answers that a site may give to each request.
_TO_A_ROUND = frozenset({Status.TRAINED, Status.SPENT, Status.BUDGET, Status.REFUSED})
WORDS: Mapping[Step, frozenset[Status]] = dict.fromkeys(Step, _TO_A_ROUND) | {
    Step.PREPARE: frozenset({Status.READY, Status.BUDGET, Status.REFUSED, Status.UNAPPROVED}),
    Step.DELIVER: frozenset({Status.READY, Status.BUDGET, Status.REFUSED}),
}


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Asks a site whether it takes part, or for its share of one round.

    Attributes:
        study: Digest of the recipe that the coordinator runs; a site with another one refuses.
        round: From 1; 0 for PREPARE.
        adapter: The global adapter in wire format; where the noise of votes is shared, the
            candidates (`protocol.candidates`); empty if the question has neither.
        step: The request.
        body: Data for secure aggregation (`secagg.query`), the claim about a delivered adapter
            (`protocol.delivery`), or the candidates of a vote (`protocol.candidates`); else empty.
        to: Name of the site that is asked; empty if nobody signs, as in a simulation.
        seen: The last `RoundReply.head` that the coordinator received from this site; empty: none.
            A site whose ledger does not have that entry was rolled back, and does not answer.
        signature: By the coordinator's key, over `statement`; empty if nobody signs.
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
        """Returns the bytes that the coordinator signs: the question, and the study's document.

        Args:
            document: The study's text, sent to the site beside the question. Its hash is signed, so
                that no other text can be sent with a signed question.
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
            AdapterFormatError: A field is missing, unknown or of another type.
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
    """A site's signed answer to one request.

    Attributes:
        site: Its name.
        round: The round of the request.
        status: The site's answer in one word.
        delta: The clipped, noised delta in wire format, or other data that was requested; empty
            unless `trained`.
        epsilon: The ε that its ledger promises: that of the whole plan at the plan's δ, or, if more
            than one plan ever ran, that of the data set's budget at the budget's δ; ∞ without
            privacy. A function of plans and budget alone, the same in every round; the certificate
            says which of the two it is, with its δ and unit.
        head: SHA-256 of the release's entry in its ledger, which includes the hash of all earlier
            entries: with it one can detect later whether the ledger was rewritten. Empty unless
            `trained`.
        signature: By the key of the site's ledger, over `statement`; empty if the site cannot
            sign. Flower authenticates a node's timestamps, not its answers.
    """

    site: str
    round: int
    status: Status
    delta: bytes
    epsilon: float
    head: str
    signature: bytes = b""

    def statement(self, study: str) -> bytes:
        """Returns the bytes that the site signs: the whole reply, and the study's digest."""
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
            AdapterFormatError: A field is missing, unknown, of another type or out of range.
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
            raise AdapterFormatError(
                f"reply: epsilon {reply.epsilon} given; a number from 0 up is needed"
            )
        if not (reply.site == "" or is_name(reply.site)) or not _HEAD.fullmatch(reply.head):
            raise AdapterFormatError("reply: the site's name or the head is not valid")
        if len(reply.signature) > SIGNATURE_BYTES:
            raise AdapterFormatError(
                f"reply: the signature has {len(reply.signature)} bytes; at most {SIGNATURE_BYTES} "
                "are allowed"
            )
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
