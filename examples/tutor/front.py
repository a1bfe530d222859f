"""The tutor's web application: a page, and what joins the two services behind it.

The models stay behind `cloister serve`; this application asks them over HTTP, as any product would,
turns their answers into advice and passes a teacher's correction on. It listens on this machine.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from lessons import Question, questions, read_as
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from tutoring import FULL, advice

PAGE = Path(__file__).parent / "page"
FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
# Characters of an answer: two pages, of which the models read the first 96 tokens.
MOST_ANSWER = 4000
# Seconds for an answer of a service, on a machine that does other things too.
PATIENCE = 60.0


class BadRequestError(Exception):
    """A request that cannot be answered; the message says why."""


@dataclass(frozen=True)
class Tutor:
    """The services behind the page.

    Attributes:
        scorer: Address of the service that scores answers.
        finder: Address of the one that finds material.
    """

    scorer: str
    finder: str

    async def advise(self, request: Request) -> Response:
        """Answers `POST /advice` with points, a hint and material."""
        body = await _json(request)
        question, text = _question(body.get("question")), body.get("answer")
        if not isinstance(text, str) or not text.strip():
            raise BadRequestError("answer: write something first")
        if len(text) > MOST_ANSWER:
            raise BadRequestError(f"answer: it may have {MOST_ANSWER} characters")
        asked = read_as(question, text.strip())
        scored = await _posted(f"{self.scorer}v1/predict", {"inputs": [asked]})
        found = await _posted(f"{self.finder}v1/predict", {"inputs": [asked]})
        (score,), (near,) = scored["predictions"], found["predictions"]
        told = advice(question, round(score["grade"]), [one["id"] for one in near["passages"]])
        material = told.material
        return _told(
            {
                "grade": told.grade,
                "full": FULL,
                "score": score["score"],
                "hint": told.hint,
                "material": material and {"title": material.title, "text": material.text},
                "given": {"input": asked, "answer": score, "receipt": scored["receipts"][0]},
            }
        )

    async def correct(self, request: Request) -> Response:
        """Passes a teacher's correction on to the scorer's service."""
        answer = await _asked("POST", f"{self.scorer}v1/feedback", await _json(request))
        return _told(answer.json(), answer.status_code)


async def course(request: Request) -> Response:
    """Answers `GET /questions`."""
    return _told([{"key": one.key, "text": one.text} for one in questions()])


async def file(request: Request) -> Response:
    """Answers the page's files."""
    return FileResponse(PAGE / FILES[request.url.path], headers=HEADERS)


async def refused(request: Request, error: Exception) -> Response:
    """Says what was wrong with a request."""
    return _told({"error": {"message": str(error)}}, 400)


async def left(request: Request, error: Exception) -> Response:
    """Ends a request that was cut off; nobody is left to answer."""
    return Response(status_code=499)


def make_app(tutor: Tutor) -> Starlette:
    """Makes the web application.

    A page of another site that a browser shows could reach this machine by a name of its own; so
    only this machine's names are answered, and a body must be declared as JSON, which no form does.
    """
    return Starlette(
        routes=[
            Route("/advice", tutor.advise, methods=["POST"]),
            Route("/feedback", tutor.correct, methods=["POST"]),
            Route("/questions", course, methods=["GET"]),
            *(Route(place, file, methods=["GET"]) for place in FILES),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={BadRequestError: refused, ClientDisconnect: left},
    )


def _told(content: object, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, HEADERS)


async def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise BadRequestError("content-type: application/json is needed")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 16 * MOST_ANSWER:  # a character has up to 12 bytes in JSON
            raise BadRequestError("the request is too long")
    try:
        found = httpx.Response(200, content=body).json()
    except ValueError as error:
        raise BadRequestError("the request is no JSON") from error
    if not isinstance(found, dict):
        raise BadRequestError("an object is needed")
    return found


def _question(key: object) -> Question:
    for one in questions():
        if one.key == key:
            return one
    raise BadRequestError("question: not one of the course")


async def _asked(method: str, place: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        try:
            return await client.request(method, place, json=body)
        except httpx.HTTPError as error:
            raise BadRequestError(
                "a service behind this page does not answer; start it again"
            ) from error


async def _posted(place: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await _asked("POST", place, body)
    found: dict[str, Any] = answer.json()
    if answer.status_code != httpx.codes.OK:
        raise BadRequestError(str(found["error"]["message"]))
    return found


@contextlib.contextmanager
def on_this_machine(app: Starlette, port: int) -> Iterator[str]:
    """Serves an application in a thread until the block ends.

    Args:
        app: The application.
        port: The port; 0: a free one.

    Yields:
        Its address.

    Raises:
        OSError: The port is taken.
    """
    place = socket.create_server(("127.0.0.1", port))
    # Without uvicorn's own log settings, which close the handlers of other libraries here.
    config = uvicorn.Config(app, log_config=None, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        place.close()
