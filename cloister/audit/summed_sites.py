"""Sites of an audit whose answers are summed under secure aggregation, in one process.

What leaves each of them is heard too: except for masked bytes it must be the same at all sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from cloister.client.admission import Admitted, admit
from cloister.client.app import make_client_app
from cloister.client.round import run_round
from cloister.client.site import Site
from cloister.errors import RefusedError, RoundSpentError
from cloister.privacy.sharing import Sharing
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Step
from cloister.protocol.signed_questions import Unsigned
from cloister.server.dispatch import Dispatcher, Nodes, Timeouts
from cloister.server.replies import ReplyTerms
from cloister.server.secure import SecureRounds
from cloister.simulation.local_grid import LocalGrid
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class SummedSites:
    """Sites with shared noise, ready to be asked.

    Attributes:
        rounds: Asks for their secure sums.
        nodes: The connected sites.
        heard: Questions with what left the sites so far, exchange by exchange, in their order;
            grows as they answer.
        different: Masked values that differed when they were asked for again, or that were sent for
            another question than the round's; grows too.
    """

    rounds: SecureRounds
    nodes: Nodes
    heard: list[tuple[RoundRequest, RoundReply]]
    different: list[RoundReply]

    @property
    def replies(self) -> list[RoundReply]:
        """What left the sites so far."""
        return [reply for _, reply in self.heard]


def summed_sites(
    sites: Sequence[Site],
    workspace: Workspace,
    sharing: Sharing,
    *,
    has_evaluations: bool = False,
    other: bytes,
) -> SummedSites:
    """Connects sites to secure sums.

    Args:
        sites: The sites, with their epoch keys; in order of their names.
        workspace: The study's.
        sharing: How their noise is shared.
        has_evaluations: Whether the study has private evaluations.
        other: A question that is not asked. Each site is asked for its masked values again, and
            then for those of this question.
    """
    keys = {site.name: site.ledger.public_key for site in sites}

    def admitted(at: Context) -> Admitted:
        return admit(sites[int(str(at.node_config["partition-id"]))], workspace)

    heard, different = list[tuple[RoundRequest, RoundReply]](), list[RoundReply]()
    app = asked_again(make_client_app(admitted, Unsigned()), admitted, other, different.append)
    grid = LocalGrid(overheard(app, lambda *pair: heard.append(pair)), len(sites))
    asker = Dispatcher(
        grid, lambda _: dict.fromkeys(grid.get_node_ids(), ""), Timeouts(3600.0), Unsigned()
    )
    terms = ReplyTerms(sites[0].study, tuple(keys), keys)
    rounds = SecureRounds(asker, terms, keys, sharing, has_evaluations=has_evaluations)
    return SummedSites(rounds, dict.fromkeys(grid.get_node_ids(), ""), heard, different)


def asked_again(
    app: ClientApp,
    admitted: Callable[[Context], Admitted],
    other: bytes,
    differs: Callable[[RoundReply], None],
) -> ClientApp:
    """Returns the same app, which is asked each question for masked values again.

    Args:
        app: The app.
        admitted: Admits the site of a context.
        other: What it is asked for in the same round after that; it must refuse.
        differs: Called with each further answer that is not the first one.
    """

    def call(message: Message, context: Context) -> Message:
        reply = app(message, context)
        request = _request(message)
        if request.step is Step.MASK:
            first, again = _reply(reply), _reply(app(message, context))
            if again != first:
                differs(again)
            with suppress(RefusedError, RoundSpentError):
                another = replace(request, adapter=other)
                differs(run_round(admitted(context), another, lambda: None))
        return reply

    return call  # type: ignore[return-value]


def overheard(app: ClientApp, heard: Callable[[RoundRequest, RoundReply], object]) -> ClientApp:
    """Returns the same app, which also passes on each question with its answer."""

    def call(message: Message, context: Context) -> Message:
        reply = app(message, context)
        heard(_request(message), _reply(reply))
        return reply

    return call  # type: ignore[return-value]


def _request(message: Message) -> RoundRequest:
    return RoundRequest.from_fields(dict(message.content[RECORD]))


def _reply(message: Message) -> RoundReply:
    return RoundReply.from_fields(dict(message.content[RECORD]))


def differing(replies: Sequence[RoundReply], sites: int) -> set[str]:
    """Fields that differ between sites in the same exchange; also payloads of different length."""
    apart = set()
    for start in range(0, len(replies), sites):
        exchange = replies[start : start + sites]
        if len({len(reply.delta) for reply in exchange}) > 1:
            apart.add("delta")
        for field in fields(RoundReply):
            if field.name in ("site", "delta", "head", "signature"):
                continue
            if len({repr(getattr(reply, field.name)) for reply in exchange}) > 1:
                apart.add(field.name)
    return apart
