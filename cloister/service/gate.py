"""What every request passes: this machine's names, the caller's token and rate, and headers."""

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

# Asked without a token: whether it lives, and the page, which holds nothing of a model.
OPEN = {"/healthz", "/", "/page.js", "/feedback.js", "/page.css"}
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
# Under this name a request's scope has its caller.
CALLER = "cloister.caller"
# How long a caller may leave a part of an answer unread, in seconds, before it is dropped.
UNREAD_SECONDS = 60.0


class RequestGate:
    """Lets requests through to an application, or answers them itself.

    A page of another site that a browser shows could ask a service on this machine: by a name of
    its own for this address, so without tokens only this machine's names are answered; and by a
    form, so a body must be declared as JSON, which no form does.

    Args:
        app: The application.
        callers: Who may ask.
        rates: How often.
        figures: Counts every request.

    Attributes:
        answered: Requests that were answered so far.
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
            return _refused(429, "more requests than this caller has; try again later", later)
        return None


def _host(header: str) -> str:
    is_named = header.endswith("]") or ":" not in header
    return header if is_named else header.rpartition(":")[0]


def _refused(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(failure(status, message), status, headers)
