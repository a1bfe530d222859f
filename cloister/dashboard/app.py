"""Makes the dashboard's web application: its pages, their refresher, and metrics; read-only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cloister.dashboard.access import Access
from cloister.dashboard.pages import refresher, render
from cloister.dashboard.sources import Page, Source
from cloister.errors import CloisterError

# The content type that Prometheus expects.
METRICS = "text/plain; version=0.0.4; charset=utf-8"


def make_app(source: Source, token: str | None) -> ASGIApp:
    """Makes the web application, with its access checks.

    Args:
        source: The source of its pages and metrics.
        token: The token that every request must have; None: none is needed.
    """

    def page_of(page: Page) -> Callable[[Request], Response]:
        def show(request: Request) -> Response:
            now = datetime.now(UTC)
            try:
                return HTMLResponse(source.page(page, now, is_live=True))
            except CloisterError as error:
                return HTMLResponse(render("trouble", str(error), now, is_live=True), 503)

        return show

    def metrics(request: Request) -> Response:
        if source.metrics is None:
            return PlainTextResponse("this dashboard shows ledgers, which have no metrics\n", 404)
        try:
            return Response(source.metrics(datetime.now(UTC)), media_type=METRICS)
        except CloisterError as error:
            return PlainTextResponse(f"{error}\n", 503)

    def script(request: Request) -> Response:
        return Response(refresher(), media_type="text/javascript")

    places = [(source.address(page).replace(".", ""), page_of(page)) for page in source.pages]
    own = [*places, ("metrics", metrics), ("refresh.js", script)]
    routes = [Route(f"/{place}", answer, methods=["GET"]) for place, answer in own]
    return Access(Starlette(routes=routes), token)
