"""The labelling page as a web application: it shows one record at a time and saves each answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cloister.errors import CloisterError
from cloister.json_text import read_json
from cloister.labelling.access import MOST_POSTED, LabelAccess
from cloister.labelling.session import LabelSession

ASSETS = Path(__file__).parent / "assets"
_MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Status codes of an answer that was not saved: the disk failed, the request is not valid, or it was
# cut off (nginx's code; it is sent to nobody).
_NOT_SAVED, _INVALID, _LEFT = 507, 422, 499
_PLACE = re.compile(r"-1|[0-9]{1,9}")


def make_label_app(
    session: LabelSession,
    token: str,
    facts: Mapping[str, Any],
    agreement: Callable[[], Any] | None = None,
) -> ASGIApp:
    """Makes the web application, with its access checks.

    Args:
        session: The annotator's session.
        token: The token that a request for a record must have.
        facts: Facts that the page shows: source, annotator, file.
        agreement: Computes the table that the page shows once all records are answered; None: it
            shows none.
    """

    def begin(request: Request) -> Response:
        scheme = session.scheme.to_json()
        return JSONResponse({**facts, **scheme, **session.at(session.start())})

    def show(request: Request) -> Response:
        asked = request.query_params
        name = "after" if "after" in asked else "at"
        if not _PLACE.fullmatch(place := asked.get(name, "")):
            return JSONResponse({"error": "no such record"}, _INVALID)
        act = session.after if name == "after" else session.at
        return JSONResponse(act(int(place)))

    def save(posted: Any) -> Response:
        if not isinstance(posted, dict) or type(posted.get("at")) is not int:
            return JSONResponse({"error": "not an answer; load the page again"}, _INVALID)
        return _saved(lambda: session.answer(posted["at"], posted.get("answer")))

    async def answer(request: Request) -> Response:
        try:
            posted = read_json(await request.body(), most_bytes=MOST_POSTED)
        except ValueError:
            return JSONResponse({"error": "not an answer; load the page again"}, _INVALID)
        except ClientDisconnect:  # nobody is left to answer, and nothing was saved
            return Response(status_code=_LEFT)
        return await run_in_threadpool(save, posted)

    def undo(request: Request) -> Response:
        return _saved(session.undo)

    def compared(request: Request) -> Response:
        # Show it only at the end: seeing the others' answers earlier would influence the annotator.
        if agreement is None or session.answered < len(session.items):
            return JSONResponse({"agreement": None})
        try:
            return JSONResponse({"agreement": agreement()})
        except CloisterError as error:
            return JSONResponse({"error": str(error)}, _INVALID)

    assets = {"/": "label.html", **{f"/{n}": n for n in ("label.css", "label.js", "words.js")}}
    routes = [Route(path, _file(ASSETS / name), methods=["GET"]) for path, name in assets.items()]
    routes += [
        Route("/begin", begin, methods=["GET"]),
        Route("/record", show, methods=["GET"]),
        Route("/agreement", compared, methods=["GET"]),
        Route("/answer", answer, methods=["POST"]),
        Route("/undo", undo, methods=["POST"]),
    ]
    return LabelAccess(Starlette(routes=routes), token)


def _file(path: Path) -> Callable[[Request], Response]:
    content = path.read_bytes()

    def serve(request: Request) -> Response:
        return Response(content, media_type=_MEDIA[path.suffix])

    return serve


def _saved(act: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(act())
    except CloisterError as error:
        return JSONResponse({"error": str(error)}, _INVALID)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return JSONResponse({"error": f"not saved ({reason})"}, _NOT_SAVED)
