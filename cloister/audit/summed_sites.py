"""Sites of an audit whose answers are summed under secure aggregation, in one process.

What leaves each of them is heard too: except for masked bytes it must be the same at all sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from cloister.client.admission import admit
from cloister.client.app import make_client_app
from cloister.client.site import Site
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
        replies: What left them so far, exchange by exchange, in their order; grows as they answer.
        different: Masked values that differed when they were asked for again; grows too.
    """

    rounds: SecureRounds
    nodes: Nodes
    replies: list[RoundReply]
    different: list[RoundReply]


def summed_sites(
    sites: Sequence[Site],
    workspace: Workspace,
    sharing: Sharing,
    *,
    has_evaluations: bool = False,
    twice: bool = False,
) -> SummedSites:
    """Connects sites to secure sums.

    Args:
        sites: The sites, with their epoch keys; in order of their names.
        workspace: The study's.
        sharing: How their noise is shared.
        has_evaluations: Whether the study has private evaluations.
        twice: Whether each site is asked for its masked values again.
    """
    keys = {site.name: site.ledger.public_key for site in sites}
    app = make_client_app(
        lambda at: admit(sites[int(str(at.node_config["partition-id"]))], workspace), Unsigned()
    )
    replies, different = list[RoundReply](), list[RoundReply]()
    app = asked_twice(app, different.append) if twice else app
    grid = LocalGrid(overheard(app, replies.append), len(sites))
    asker = Dispatcher(
        grid, lambda _: dict.fromkeys(grid.get_node_ids(), ""), Timeouts(3600.0), Unsigned()
    )
    terms = ReplyTerms(sites[0].study, tuple(keys), keys)
    rounds = SecureRounds(asker, terms, keys, sharing, has_evaluations=has_evaluations)
    return SummedSites(rounds, dict.fromkeys(grid.get_node_ids(), ""), replies, different)


def asked_twice(app: ClientApp, differs: Callable[[RoundReply], None]) -> ClientApp:
    """Returns the same app, which is asked each question for masked values again; what it answers
    otherwise is passed on."""

    def call(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if RoundRequest.from_fields(dict(message.content[RECORD])).step is Step.MASK:
            first, again = (
                RoundReply.from_fields(dict(one.content[RECORD]))
                for one in (reply, app(message, context))
            )
            if again != first:
                differs(again)
        return reply

    return call  # type: ignore[return-value]


def overheard(app: ClientApp, heard: Callable[[RoundReply], None]) -> ClientApp:
    """Returns the same app, which also passes on each of its replies."""

    def call(message: Message, context: Context) -> Message:
        reply = app(message, context)
        heard(RoundReply.from_fields(dict(reply.content[RECORD])))
        return reply

    return call  # type: ignore[return-value]


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
