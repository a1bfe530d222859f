"""A round under secure aggregation: the coordinator gets the sum of the sites' updates, or nothing.

    advertise   once an epoch: every member's public key
    mask        every member's masked update                     fewer than the threshold: no sum
    sign        each summed site's signature of the set of them  fewer than the threshold: no sum
    reveal      shares that unmask that one sum                  fewer than the threshold: no sum

Sites keep an epoch's keys in memory. A site that lost them, or connects late, joins the next epoch,
which begins with the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cloister.adapter.wire import digest
from cloister.errors import AdapterFormatError, QuorumError
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import SIGNATURE_BYTES, RoundRequest, Step
from cloister.secagg.epoch_keys import ADVERTISEMENT_BYTES, read_advertisement
from cloister.secagg.epoch_terms import EpochTerms as EpochTerms
from cloister.secagg.messages import MaskedUpdate, Revealed, masked_bytes, revealed_bytes
from cloister.secagg.numbering import sum_number
from cloister.secagg.participant import has_signed
from cloister.secagg.query import Query, to_hex
from cloister.secagg.unmasking import unmasked_sum
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Awaited, Replies, ReplyTerms, read_replies

T = TypeVar("T")


@dataclass(frozen=True)
class SecureSum:
    """The result of a round under secure aggregation: the total, or why there is none.

    Attributes:
        replies: The replies to the MASK question, with the bytes of all exchanges.
        total: The sum of the integers of `replies.counted` [values]; None: nothing was unmasked.
        why: Why there is no total, in words.
    """

    replies: Replies
    total: NDArray[np.int64] | None
    why: str = ""


@dataclass
class SecureRounds:
    """Secure aggregation over a study's rounds.

    Attributes:
        asker: Asks the sites.
        terms: The facts that every reply is checked against.
        keys: Public keys of the sites' ledgers.
        sharing: How the study's noise is shared.
        has_evaluations: Whether statistics of private evaluations are summed, too.
        retired: Sites whose budget is spent.
    """

    asker: Dispatcher
    terms: ReplyTerms
    keys: Mapping[str, str]
    sharing: Sharing
    has_evaluations: bool = False
    retired: set[str] = field(default_factory=set)
    _epoch: EpochTerms | None = None
    _advertised: dict[str, bytes] = field(default_factory=dict)
    _nodes: dict[str, int] = field(default_factory=dict)
    _number: int = 0
    _advertising: int = 0  # bytes of advertisements, until a round counts them

    def run(
        self, number: int, payload: bytes, values: int, nodes: Nodes, *, evaluates: bool = False
    ) -> SecureSum:
        """Asks the sites for the sum of a round's updates, or of the statistics after it.

        Args:
            number: The round.
            payload: The global adapter in wire format.
            values: Number of values of an update, or of statistics.
            nodes: The connected nodes.
            evaluates: Whether sites score the adapter on their held-out units.

        Raises:
            QuorumError: Too few sites are connected to begin an epoch.
        """
        epoch = self._epoch
        if epoch is None or self._newcomers(nodes, epoch):
            epoch = self._begin(number, nodes)
        replies, masked = self._mask(epoch, number, payload, values, nodes, evaluates=evaluates)
        place = sum_number(number, evaluates=evaluates, has_evaluations=self.has_evaluations)
        replies.bytes += self._advertising
        self._advertising = 0
        self.retired |= replies.retired
        if set(replies.counted) < set(epoch.members):
            self._epoch = None
        if len(masked) < epoch.threshold:
            return SecureSum(replies, None)
        there, start = tuple(sorted(masked)), digest(payload)
        try:
            signed = self._ask(
                Step.SIGN,
                epoch,
                number,
                replies,
                there,
                lambda site: awaited_signature(epoch, place, start, there, site),
                lambda site: Query(
                    epoch=epoch.epoch,
                    members=epoch.members,
                    survivors=there,
                    adapter=start,
                    evaluates=evaluates,
                ),
            )
            self._enough(signed, "signed the set of summed sites")
            revealed = self._ask(
                Step.REVEAL,
                epoch,
                number,
                replies,
                tuple(signed),
                lambda site: Awaited(
                    revealed_bytes(epoch, len(there)),
                    lambda shares: Revealed.from_bytes(epoch, there, shares),
                ),
                lambda site: Query(
                    epoch=epoch.epoch,
                    members=epoch.members,
                    signatures=to_hex(signed),
                    adapter=start,
                    boxes=to_hex({s: masked[s].boxes[site] for s in there if s != site}),
                    evaluates=evaluates,
                ),
            )
            total = unmasked_sum(epoch, number, masked, revealed)
        except (QuorumError, AdapterFormatError) as error:
            self._epoch = None
            return SecureSum(replies, None, str(error))
        return SecureSum(replies, total)

    def _newcomers(self, nodes: Nodes, epoch: EpochTerms) -> bool:
        """Whether a connected site is outside of the epoch and could join one."""
        known = set(nodes.values()) & set(self.keys)
        return bool(known - set(epoch.members) - self.retired)

    def _begin(self, number: int, nodes: Nodes) -> EpochTerms:
        """Begins an epoch among the sites that advertise a key."""
        named = {site for site in nodes.values() if site}
        could = (named or set(self.keys)) - self.retired
        while True:
            if len(could) < self.sharing.threshold:
                raise QuorumError(
                    f"round {number}: {len(could)} of {self.sharing.sites} sites take part in an "
                    f"epoch of secure aggregation, {self.sharing.threshold} are needed; look into "
                    "the others' logs, then resume the run"
                )
            self._number += 1
            members = {site: self.keys[site] for site in sorted(could)}
            epoch = EpochTerms(
                study=self.terms.digest, epoch=self._number, members=members, sharing=self.sharing
            )
            question = Query(epoch=epoch.epoch, members=members)
            self._advertised = {}
            asked = RoundRequest(
                self.terms.digest, number, b"", Step.ADVERTISE, question.to_bytes()
            )
            replies = self._exchange(
                asked,
                self._of(nodes, could),
                self.sharing.threshold,
                partial(_advertisement, epoch),
                self._advertised.__setitem__,
            )
            self._advertising += replies.bytes
            self.retired |= replies.retired
            self._nodes |= replies.nodes
            if set(self._advertised) == could:
                self._epoch = epoch
                return epoch
            could &= set(self._advertised)

    def _mask(
        self,
        epoch: EpochTerms,
        number: int,
        payload: bytes,
        values: int,
        nodes: Nodes,
        *,
        evaluates: bool,
    ) -> tuple[Replies, dict[str, MaskedUpdate]]:
        question = Query(
            epoch=epoch.epoch,
            members=epoch.members,
            advertisements=to_hex(self._advertised),
            evaluates=evaluates,
        )
        masked: dict[str, MaskedUpdate] = {}
        replies = self._exchange(
            RoundRequest(self.terms.digest, number, payload, Step.MASK, question.to_bytes()),
            self._of(nodes, epoch.members),
            epoch.threshold,
            lambda site: Awaited(
                masked_bytes(epoch, values),
                lambda update: MaskedUpdate.from_bytes(epoch, site, update, values),
            ),
            masked.__setitem__,
        )
        self._nodes |= replies.nodes
        return replies, masked

    def _ask(
        self,
        step: Step,
        epoch: EpochTerms,
        number: int,
        so_far: Replies,
        sites: Collection[str],
        awaited: Callable[[str], Awaited[T]],
        question: Callable[[str], Query],
    ) -> dict[str, T]:
        """Sends each of these sites its own question."""
        found: dict[str, T] = {}
        requests = {
            self._nodes[site]: RoundRequest(
                self.terms.digest, number, b"", step, question(site).to_bytes()
            )
            for site in sites
        }
        nodes = {self._nodes[site]: site for site in sites}
        answers = self.asker.ask_each(number, requests, nodes, epoch.threshold, self.asker.clock())
        replies = read_replies(answers, self.terms, number, awaited, found.__setitem__)
        so_far.bytes += replies.bytes
        so_far.refused.update(replies.refused)
        return found

    def _exchange(
        self,
        request: RoundRequest,
        nodes: Nodes,
        enough: int,
        awaited: Callable[[str], Awaited[T]],
        take: Callable[[str, T], None],
    ) -> Replies:
        answers = self.asker.ask(request, nodes, enough, self.asker.clock())
        return read_replies(answers, self.terms, request.round, awaited, take)

    def _of(self, nodes: Nodes, sites: Collection[str]) -> Nodes:
        """The nodes of these sites, where it is known which site a node belongs to."""
        known = {node: site for site, node in self._nodes.items()}
        return {
            node: site
            for node, site in nodes.items()
            if (site or known.get(node)) in sites or (not site and node not in known)
        }

    def _enough(self, came: Collection[object], what: str) -> None:
        if len(came) < self.sharing.threshold:
            raise QuorumError(
                f"{len(came)} sites {what}, {self.sharing.threshold} are needed: nothing is "
                "unmasked"
            )


def _advertisement(epoch: EpochTerms, site: str) -> Awaited[bytes]:
    def read(payload: bytes) -> bytes:
        read_advertisement(epoch, site, payload)
        return payload

    return Awaited(ADVERTISEMENT_BYTES, read)


def awaited_signature(
    epoch: EpochTerms, number: int, adapter: str, survivors: Collection[str], site: str
) -> Awaited[bytes]:
    """Accepts only a member's signature on the set of summed sites.

    Other bytes would go to all members and could prevent the sum.

    Args:
        epoch: The epoch whose members sign.
        number: The number of the sum.
        adapter: SHA-256 of the global adapter that it starts from.
        survivors: The sites whose updates are summed.
        site: The member.
    """

    def read(payload: bytes) -> bytes:
        if not has_signed(epoch, number, adapter, survivors, site, payload):
            raise AdapterFormatError(
                "the signature is not the site's own on the set of summed sites"
            )
        return payload

    return Awaited(SIGNATURE_BYTES, read)
