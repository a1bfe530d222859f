"""The site's Flower ClientApp: a thin shell around `answer`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.exchange import RECORD, RoundReply, RoundRequest, Status
from cloister.client.policy import status_for
from cloister.client.site import Site, answer, signed
from cloister.errors import BudgetError, CloisterError, RefusedError, RoundSpentError
from cloister.training.workspace import Workspace

log = logging.getLogger(__name__)

OpenSite = Callable[[Context], tuple[Site, Workspace]]


def make_client_app(
    open_site: OpenSite,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> ClientApp:
    """A ClientApp for sites that `open_site` finds from their Flower context.

    Args:
        open_site: Loads the site's records and the workspace; called for every message, so it
            keeps what it loaded.
        on_step: Called after each local step, for progress where the site runs.
        on_error: Given what went wrong, where the site runs.

    Guarantees:
        An error's text stays in the site's own log; the coordinator gets a fixed status.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, number = None, 0
        try:
            site, workspace = open_site(context)
            request = RoundRequest.from_fields(dict(message.content[RECORD]))
            number = request.round
            reply = answer(site, workspace, request, on_step)
        except Exception as error:
            known = isinstance(error, CloisterError)
            name = site.name if site else ""
            log.error("%s: %s", name or "site", error, exc_info=None if known else error)
            # Without a policy at hand nothing more than a failure may be told.
            word = status_for(status_of(error), site.policy) if site else Status.FAILED
            reply = RoundReply(name, number, word, b"", 0.0, "")
            reply = signed(site, reply) if site else reply
            on_error(error)
        return Message(RecordDict({RECORD: ConfigRecord(reply.fields())}), reply_to=message)

    return app


def status_of(error: Exception) -> Status:
    """The one word that the coordinator is told of an error."""
    if isinstance(error, RoundSpentError):
        return Status.SPENT
    if isinstance(error, BudgetError):
        return Status.BUDGET
    return Status.REFUSED if isinstance(error, RefusedError) else Status.FAILED
