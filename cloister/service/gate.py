"""Checks every request: the Host header, the caller's token and rate; adds security headers."""

from __future__ import annotations

import asyncio
import math
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.dashboard.access import OWN_NAMES
from cloister.service.callers import CallerRates, Callers
from cloister.service.figures import Figures
from cloister.service.openai_form import failure

# Served without a token: the health check, and the page, which contains nothing of the model.
OPEN = {"/healthz", "/", "/page.js", "/feedback.js", "/reasons.js", "/page.css"}
ROUTES = {*OPEN, "/metrics", "/v1/predict", "/v1/models", "/v1/chat/completions", "/v1/feedback"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# A request's scope has its caller under this name.
CALLER = "cloister.caller"
# Seconds that a caller may leave a part of an answer unread before the connection is closed.
UNREAD_SECONDS = 60.0


class RequestGate:
    """Passes requests on to an application, or refuses them itself.

    A web page of another site, open in a browser on this machine, could send requests to the
    service. Two checks prevent it. DNS rebinding: without tokens, only this machine's own names
    are accepted in the Host header. HTML forms: a body must be declared as JSON, which a form
    cannot do.

    Args:
        app: The application.
        callers: The callers that are known.
        rates: The limit of each caller's requests.
        figures: Counts every request.

    Attributes:
        answered: Number of requests that were answered so far.
    """

    def __init__(
        self, app: ASGIApp, callers: Callers, rates: CallerRates, figures: Figures
    ) -> None:
        self._app, self._callers, self._rates = app, callers, rates
        self._figures = figures
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, and counts it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            async with asyncio.timeout(UNREAD_SECONDS):
                await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, send_on)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self._figures.request(route, status, time.monotonic() - started)
            self.answered += 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self._callers.hashes is None and _host(headers.get("host", "")) not in OWN_NAMES:
            return _refused(421, "not a name of this machine")
        if scope["path"] in OPEN:
            return None
        caller = self._callers.name_of(headers.get("authorization", ""))
        if caller is None:
            asked = {"www-authenticate": "Bearer"}
            return _refused(401, "a token is needed: Authorization: Bearer TOKEN", asked)
        scope[CALLER] = caller
        if scope["method"] != "POST":
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _refused(415, "content-type: application/json is needed")
        if wait := self._rates.wait(caller):
            later = {"retry-after": str(math.ceil(wait))}
            return _refused(
                429, "this caller's limit of requests is reached; try again later", later
            )
        return None


def _host(header: str) -> str:
    is_named = header.endswith("]") or ":" not in header
    return header if is_named else header.rpartition(":")[0]


def _refused(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(failure(status, message), status, headers)
