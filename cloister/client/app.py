"""The site's Flower ClientApp: a thin shell around `answer`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.client.policy import status_for
from cloister.client.policy_file import SitePolicy
from cloister.client.site import Site, answer
from cloister.errors import BudgetError, CloisterError, RefusedError, RoundSpentError
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

OpenSite = Callable[[Context], tuple[Site, Workspace]]


@dataclass(frozen=True)
class Identity:
    """In whose name a status is told where no site could be opened.

    Attributes:
        name: The site's.
        policy: What may be told.
        sign: By the ledger's key.
    """

    name: str
    policy: SitePolicy
    sign: Callable[[bytes], bytes]


def make_client_app(
    open_site: OpenSite,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Exception], None] = lambda error: None,
    identify: Callable[[], Identity | None] = lambda: None,
) -> ClientApp:
    """A ClientApp for sites that `open_site` finds from their Flower context.

    Args:
        open_site: Loads the site's records and the workspace; called for every message, so it
            keeps what it loaded.
        on_step: Called after each local step, for progress where the site runs.
        on_error: Given what went wrong, where the site runs.
        identify: Who answers where `open_site` fails; None where that is not known either.

    Guarantees:
        An error's text stays at the site; the coordinator gets a fixed status.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, request = None, RoundRequest("", 0, b"")
        try:
            request = RoundRequest.from_fields(dict(message.content[RECORD]))
            site, workspace = open_site(context)
            reply = answer(site, workspace, request, on_step)
        except Exception as error:
            known = isinstance(error, CloisterError)
            log.error("round %d: %s", request.round, type(error).__name__,
                      exc_info=None if known else error)  # fmt: skip
            on_error(error)
            who = Identity(site.name, site.policy, site.ledger.sign) if site else identify()
            reply = _told(status_of(error), request, who)
        return Message(RecordDict({RECORD: ConfigRecord(reply.fields())}), reply_to=message)

    return app


def _told(status: Status, request: RoundRequest, who: Identity | None) -> RoundReply:
    """A status as it may be told; without a policy at hand, nothing more than a failure."""
    if who is None:
        return RoundReply("", request.round, Status.FAILED, b"", 0.0, "")
    reply = RoundReply(who.name, request.round, status_for(status, who.policy), b"", 0.0, "")
    return replace(reply, signature=who.sign(reply.statement(request.study)))


def status_of(error: Exception) -> Status:
    """The one word that the coordinator is told of an error."""
    if isinstance(error, RoundSpentError):
        return Status.SPENT
    if isinstance(error, BudgetError):
        return Status.BUDGET
    return Status.REFUSED if isinstance(error, RefusedError) else Status.FAILED
