"""The dashboard as a web application: read only, one page, its refresher and its metrics."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cloister.errors import CloisterError
from cloister.serving.metrics import CONTENT_TYPE
from cloister.serving.pages import refresher

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
COOKIE = "cloister-dashboard"


@dataclass(frozen=True)
class View:
    """What the dashboard shows.

    Attributes:
        page: Makes the page anew.
        metrics: Makes a scrape; None: there is none.
    """

    page: Callable[[], str]
    metrics: Callable[[], bytes] | None = None


def make_app(view: View, token: str | None) -> Starlette:
    """The application.

    Args:
        view: What to show.
        token: What everybody must show, as `Authorization: Bearer …` or once as `?token=…`; None:
            nobody need.
    """

    def allowed(request: Request) -> bool:
        if token is None:
            return True
        shown = (
            request.headers.get("authorization", "").removeprefix("Bearer "),
            request.query_params.get("token", ""),
            request.cookies.get(COOKIE, ""),
        )
        return any(hmac.compare_digest(one.encode(), token.encode()) for one in shown if one)

    async def answer(request: Request, make: Callable[[], Response]) -> Response:
        if not allowed(request):
            return PlainTextResponse("a token is needed\n", 401, HEADERS)
        try:
            response = await run_in_threadpool(make)
        except CloisterError as error:
            return PlainTextResponse(f"{error}\n", 500, HEADERS)
        if token is not None and request.query_params.get("token"):
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    async def page(request: Request) -> Response:
        return await answer(
            request, lambda: Response(view.page(), 200, HEADERS, media_type="text/html")
        )

    async def script(request: Request) -> Response:
        return await answer(
            request, lambda: Response(refresher(), 200, HEADERS, media_type="text/javascript")
        )

    async def metrics(request: Request) -> Response:
        made = view.metrics
        if made is None:
            return PlainTextResponse("a ledger alone has no metrics\n", 404, HEADERS)
        return await answer(
            request, lambda: Response(made(), 200, {**HEADERS, "content-type": CONTENT_TYPE})
        )

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/refresh.js", script, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ]
    )
