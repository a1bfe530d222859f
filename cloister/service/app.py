"""The service as a web application: predictions, chat completions, health, metrics and a page."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from cloister.bounds import shortened
from cloister.data.records import ChatRecord
from cloister.documents.frame import cited_in, question_of
from cloister.documents.index import Hit
from cloister.errors import BadFileError, CloisterError, DataError, MisfitError
from cloister.feedback.store import StoreFullError
from cloister.service.batching import (
    Batcher,
    ClosedError,
    Predicted,
    QueueFullError,
    Rows,
    Talk,
    WaitingChat,
)
from cloister.service.bodies import BodyError, chat_of, inputs_of, read_body, wants_reasons
from cloister.service.callers import CallerRates, Callers
from cloister.service.feedback_desk import FeedbackDesk, answers_of
from cloister.service.figures import Figures
from cloister.service.gate import CALLER, RequestGate
from cloister.service.library import Library, prompt_with, refusal
from cloister.service.openai_form import Completion, failure
from cloister.service.reply_stream import (
    AskedReply,
    Decoding,
    Reply,
    TooLongError,
    prompt_of,
    room_for,
)
from cloister.service.sizes import size_of
from cloister.service.versions import Served, Version
from cloister.serving.inputs import Input
from cloister.tasks.chat import CausalChat

HERE = Path(__file__).parent
METRICS = "text/plain; version=0.0.4; charset=utf-8"
FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/feedback.js": ("feedback.js", "text/javascript"),
    "/reasons.js": ("reasons.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
# Seconds after which a refused caller may retry: most batches take less.
RETRY = {"retry-after": "1"}

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Service:
    """The model, the queue and the settings that every request handler uses.

    Attributes:
        served: Holds the version of the model that answers.
        batcher: The queue of requests that wait for the model.
        figures: The counters for Prometheus.
        seconds: Time limit until a request's answer begins.
        library: The documents that a chat answers from; None: there are none.
        desk: Stores feedback; None: the service stores none.
    """

    served: Served
    batcher: Batcher
    figures: Figures
    seconds: float
    library: Library | None = None
    desk: FeedbackDesk | None = None


def make_app(service: Service, callers: Callers, rates: CallerRates) -> RequestGate:
    """Makes the web application, behind its `RequestGate`."""
    routes = [
        Route("/v1/predict", _answering(service, predict), methods=["POST"]),
        Route("/v1/chat/completions", _answering(service, complete), methods=["POST"]),
        Route("/v1/models", _answering(service, models), methods=["GET"]),
        Route("/v1/feedback", _answering(service, feedback), methods=["GET", "POST"]),
        Route("/healthz", _answering(service, health), methods=["GET"]),
        Route("/metrics", _answering(service, metrics), methods=["GET"]),
        *(Route(place, _page, methods=["GET"]) for place in FILES),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})
    return RequestGate(app, callers, rates, service.figures)


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Answers requests that match no route: an unknown address, or a method that it lacks."""
    assert isinstance(error, HTTPException)
    answer = {
        404: f"there is no {shortened(request.url.path)} here; POST /v1/predict asks the model",
        405: f"{shortened(request.method)} is not allowed here; POST /v1/predict asks the model",
    }
    headers = dict(error.headers or {})
    return _failed(error.status_code, answer.get(error.status_code, error.detail), headers)


def _answering(
    service: Service, answer: Callable[[Service, Request], Awaitable[Response]]
) -> Answer:
    """Wraps a handler so that each kind of error becomes its HTTP status."""

    async def answered(request: Request) -> Response:
        try:
            async with asyncio.timeout(service.seconds):
                return await answer(service, request)
        except TimeoutError:
            return _failed(
                504, f"no answer within {service.seconds:g} seconds; send less at a time"
            )
        except BodyError as error:
            return _failed(error.status, str(error))
        except (TooLongError, DataError, MisfitError) as error:
            return _failed(400, str(error))
        except QueueFullError:
            return _failed(429, "the queue of requests is full; try again later", RETRY)
        except ClosedError:
            return _failed(503, "the service ends", RETRY)
        except StoreFullError as error:
            return _failed(429, str(error))
        except ClientDisconnect:
            return Response(status_code=499)  # the caller left; 499 is nginx's status for it
        except CloisterError as error:
            return _failed(500, str(error))

    return answered


async def predict(service: Service, request: Request) -> Response:
    """Answers `POST /v1/predict`."""
    body = await read_body(request)
    inputs, task = inputs_of(body), service.served.current.model.workspace.task
    rows = Rows(inputs, size_of(task.record_kind, inputs, task.max_length))
    if wants_reasons(body, task.kind):
        answered = await _reasoned(service, inputs)
    else:
        service.batcher.put(rows)
        answered = await asyncio.wrap_future(rows.answer)
    version, found = answered.version, answered.predictions
    answer: dict[str, object] = {
        **_named(version),
        "task": task.kind,
        "predictions": [one.to_json() for one in found],
    }
    if service.desk is not None:
        answer["receipts"] = service.desk.receipts(version, inputs, found)
    return JSONResponse(answer)


async def _reasoned(service: Service, inputs: Sequence[Input]) -> Predicted:
    """Predicts with reasons, which take many passes, so the request is computed alone."""

    def compute(version: Version) -> Predicted:
        return Predicted(version.model.predict(inputs, reasons=True), version)

    talk = Talk(compute)
    service.batcher.put(talk)
    found = await asyncio.wrap_future(talk.answer)
    assert isinstance(found, Predicted)
    return found


async def feedback(service: Service, request: Request) -> Response:
    """Answers `GET /v1/feedback` with the allowed corrections, and stores feedback on `POST`."""
    if service.desk is None:
        raise BodyError(
            404, "this service stores no feedback; start it as cloister serve --feedback FILE"
        )
    version = service.served.current
    if request.method == "GET":
        return JSONResponse(answers_of(version).to_json())
    body = await read_body(request)
    try:
        kept = await asyncio.to_thread(service.desk.take, body, version, request.scope[CALLER])
    except DataError:
        raise
    except BadFileError:  # its message contains paths of this machine, which a caller must not see
        return _failed(503, "the feedback could not be stored; tell the operator of this service")
    return JSONResponse({"id": kept, "status": "waiting"}, 201)


async def complete(service: Service, request: Request) -> Response:
    """Answers `POST /v1/chat/completions`, whole or as a stream."""
    chat, how, is_streamed, with_usage = chat_of(await read_body(request))
    if not isinstance(service.served.current.model.workspace.task, CausalChat):
        raise BodyError(400, "this model is not a chat model; use POST /v1/predict")
    if service.library is not None and not question_of(chat).strip():
        raise BodyError(400, "messages: no turn of the user; needed is a question")
    talk = ReplyPieces(service, chat, how)
    service.batcher.put(talk.waiting)
    try:
        first = await talk.next()
    except BaseException:
        talk.leave()
        raise
    head = talk.head()
    if is_streamed:
        events = _events(talk, head, first, with_usage=with_usage)
        return StreamingResponse(events, media_type="text/event-stream")
    try:
        while not isinstance(first, Reply):
            first = await talk.next()
    finally:
        talk.leave()
    return JSONResponse(head.whole(first, talk.receipt(first)))


async def _events(
    talk: ReplyPieces, head: Completion, first: str | Reply, *, with_usage: bool
) -> AsyncIterator[bytes]:
    """Yields a reply as server-sent events; decoding ends when the caller disconnects."""
    try:
        yield head.piece("", is_first=True)
        found = first
        while not isinstance(found, Reply):
            yield head.piece(found, is_first=False)
            found = await talk.next()
        yield head.end(found, talk.receipt(found), with_usage=with_usage)
    finally:
        talk.leave()


class ReplyPieces:
    """Hands the pieces of a reply from the computing thread to the request that waits for them.

    Args:
        service: The service that computes the reply.
        chat: The conversation.
        how: The settings of decoding.
    """

    def __init__(self, service: Service, chat: ChatRecord, how: Decoding) -> None:
        self._service, self._chat, self._how = service, chat, how
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | Reply | BaseException] = asyncio.Queue()
        self._left = threading.Event()
        self._version: Version | None = None
        self._passages: list[Hit] | None = None
        self.waiting = WaitingChat(how, self._prepare, self._finish)
        self.waiting.answer.add_done_callback(self._end)

    async def next(self) -> str | Reply:
        """Returns the next piece of text; after the last piece, the whole reply.

        Raises:
            Exception: The error that ended the computation.
        """
        found = await self._pieces.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def head(self) -> Completion:
        """Returns the answer's id, time and model; call it after the first piece has arrived."""
        assert self._version is not None
        version = self._version
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        return Completion(identifier, int(time.time()), version.name, version.digest)

    def receipt(self, reply: Reply) -> str | None:
        """Returns the receipt of the whole reply; None: this service stores no feedback."""
        desk = self._service.desk
        if desk is None or self._version is None:
            return None
        with_documents = self._service.library is not None
        return desk.reply_receipt(
            self._version, self._chat, reply.text, with_documents=with_documents
        )

    def leave(self) -> None:
        """Tells the computing thread that the caller left: decoding stops, or does not begin."""
        self._left.set()
        self.waiting.answer.cancel()

    def _prepare(self, version: Version) -> AskedReply | Reply:
        """Makes the prompt; runs in the computing thread.

        Raises:
            MisfitError: The base's template cannot render the conversation.
            TooLongError: Conversation, nearest passage and reply do not fit the base's positions.
        """
        self._version = version
        library = self._service.library
        if library is None:
            prompt = prompt_of(version.model, self._chat)
        else:
            hits = library.find(self._chat)
            if not hits:
                reply = refusal(self._chat)
                self._give(reply.text)
                return reply
            prompt, self._passages = prompt_with(version.model, self._chat, hits, self._how)
        room_for(version.model, prompt, self._how)  # refused before others are decoded with it
        return AskedReply(prompt, self._how, self._give, self._left.is_set)

    def _finish(self, reply: Reply) -> Reply:
        """Adds the passages that a reply cites; runs in the computing thread."""
        if self._passages is not None:
            reply = replace(reply, sources=tuple(cited_in(reply.text, self._passages)))
        self._service.figures.reply(reply.prompt_tokens, reply.reply_tokens)
        return reply

    def _end(self, answer: Future[object]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        found = answer.result() if error is None else error
        assert isinstance(found, Reply | BaseException)
        self._give(found)

    def _give(self, piece: str | Reply | BaseException) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


async def models(service: Service, request: Request) -> Response:
    """Answers `GET /v1/models`."""
    version = service.served.current
    row = {"id": version.name, "object": "model", "created": 0, "owned_by": "cloister"}
    return JSONResponse({"object": "list", "data": [row]})


async def health(service: Service, request: Request) -> Response:
    """Answers `GET /healthz`."""
    version = service.served.current
    task = version.model.workspace.task
    answer: dict[str, object] = {"status": "ok", **_named(version), "task": task.kind}
    if service.library is not None:
        answer["documents"] = len(service.library.index.documents)
    if service.desk is not None:
        answer["feedback"] = True
    return JSONResponse(answer)


async def metrics(service: Service, request: Request) -> Response:
    """Answers `GET /metrics`."""
    return Response(service.figures.text(), media_type=METRICS)


async def _page(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return Response(_file(name), media_type=kind)


@cache
def _file(name: str) -> str:
    return (HERE / "page" / name).read_text(encoding="utf-8")


def _named(version: Version) -> dict[str, str]:
    return {"model": version.name, "version": version.digest}


def _failed(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(failure(status, message), status, headers)
