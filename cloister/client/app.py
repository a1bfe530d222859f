"""The site's Flower ClientApp: a thin shell around `admit` and `run_round`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.client.admission import Admitted
from cloister.client.evaluating import is_evaluation
from cloister.client.moments import AT_ONCE, Moments
from cloister.client.round import run_round
from cloister.errors import BudgetError, CloisterError, RoundSpentError, UnapprovedError
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.protocol.signed_questions import Trusted, check_asked

log = logging.getLogger(__name__)

OpenSite = Callable[[Context], Admitted]


@dataclass(frozen=True)
class Identity:
    """The site that sends a status, and how it signs.

    Attributes:
        name: The site's.
        sign: Signs with the key of its ledger.
    """

    name: str
    sign: Callable[[bytes], bytes]


def make_client_app(
    open_site: OpenSite,
    trusted: Trusted,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Exception], None] = lambda error: None,
    identify: Callable[[Context], Identity | None] = lambda context: None,
    moments: Moments = AT_ONCE,
    on_asked: Callable[[RoundRequest], None] = lambda request: None,
) -> ClientApp:
    """A ClientApp for sites that `open_site` finds from their Flower context.

    Args:
        open_site: Admits the site to the study of a context; called for every message, so it keeps
            what it loaded. Where it touches records, it returns at a public moment.
        trusted: The coordinator whose questions are answered.
        on_step: Called after each local step, for progress where the site runs.
        on_error: Called with each error, at the site only.
        identify: The identity that answers if `open_site` fails; None if it is not known either.
        moments: When updates leave; the reply's own time stamp is set after it.
        on_asked: Called with each signed question, before anything is done for it.

    Guarantees:
        A question that the coordinator did not sign for this site gets a refusal without name or
        signature, before the study's document is parsed and without a look at ledger, records or
        base. An error's text stays at the site; the coordinator gets one word of a fixed list.
        After a charge, every answer leaves at a moment of the admission's period.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request = RoundRequest("", 0, b"")
        try:
            request = RoundRequest.from_fields(dict(message.content[RECORD]))
            check_asked(request, str(context.run_config.get("recipe", "")), trusted)
        except Exception as error:
            _log(error, request.round)
            on_error(error)
            return as_message(anonymous_refusal(request.round), message)
        on_asked(request)
        admitted, begun = None, 0.0
        try:
            admitted = open_site(context)
            begun = moments.clock()
            reply = run_round(admitted, request, on_step)
        except Exception as error:
            _log(error, request.round)
            on_error(error)
            reply = _status_reply(
                status_of(error, request.step), request, _who(admitted) or identify(context)
            )
        if admitted is not None and reply.status in (Status.TRAINED, Status.SPENT):
            evaluates = is_evaluation(request)
            moments.hold(begun, admitted.evaluation_period if evaluates else admitted.period)
        return as_message(reply, message)

    return app


def as_message(reply: RoundReply, question: Message) -> Message:
    """A reply as a Flower message, with a time stamp in whole seconds.

    Flower would stamp microseconds, from which the coordinator could tell how long training took.
    """
    message = Message(RecordDict({RECORD: ConfigRecord(reply.fields())}), reply_to=question)
    message.metadata.created_at = float(int(message.metadata.created_at))
    message.metadata.ttl = left_at(message.metadata.created_at, question)
    return message


def left_at(stamp: float, question: Message) -> float:
    """The reply's time to live in seconds: it expires together with its question."""
    return question.metadata.created_at + question.metadata.ttl - stamp


def anonymous_refusal(number: int) -> RoundReply:
    """Makes a refusal without name or signature, if the site cannot read its own name and key."""
    return RoundReply("", number, Status.REFUSED, b"", 0.0, "")


def _who(admitted: Admitted | None) -> Identity | None:
    return Identity(admitted.site.name, admitted.site.ledger.sign) if admitted else None


def _status_reply(status: Status, request: RoundRequest, who: Identity | None) -> RoundReply:
    if who is None:
        return anonymous_refusal(request.round)
    reply = RoundReply(who.name, request.round, status, b"", 0.0, "")
    return replace(reply, signature=who.sign(reply.statement(request.study)))


def status_of(error: Exception, step: Step) -> Status:
    """The word that the coordinator gets for an error.

    After a charge every error is a `RoundSpentError`; any other error depends on the question, the
    site's file, its approvals and its ledger only. Only a PREPARE question is answered by
    `unapproved`, because the coordinator repeats it; any other question about such a study is
    refused.
    """
    if isinstance(error, UnapprovedError) and step is Step.PREPARE:
        return Status.UNAPPROVED
    if isinstance(error, RoundSpentError):
        return Status.SPENT
    return Status.BUDGET if isinstance(error, BudgetError) else Status.REFUSED


def _log(error: Exception, number: int) -> None:
    """Logs an error's type, never its text; for an unexpected error also the stack."""
    if isinstance(error, UnapprovedError):  # the question comes again every few seconds
        log.info("round %d: the study waits for an approval", number)
        return
    if isinstance(error, RoundSpentError) and error.__cause__ is None:
        log.warning(
            "round %d: charged before and interrupted before its release; it stays spent, and the "
            "site goes on with the next round",
            number,
        )
        return
    cause = error.__cause__ if isinstance(error, RoundSpentError) else None
    source = cause if isinstance(cause, Exception) else error
    log.error(
        "round %d: %s",
        number,
        type(source).__name__,
        exc_info=None if isinstance(source, CloisterError) else source,
    )
