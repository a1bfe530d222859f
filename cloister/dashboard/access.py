"""Controls access to the dashboard: GET requests only, the token, and this machine's host names.

A page of another site in a browser could send requests to a server on this machine under its own
host name (DNS rebinding), so without a token only this machine's host names are answered.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.dashboard.pages import content_policy

HEADERS = {
    "content-security-policy": content_policy(is_live=True),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OWN_NAMES = {"localhost", "127.0.0.1", "[::1]"}
ASK = {"www-authenticate": 'Basic realm="Cloister dashboard: the token is the password"'}


class Access:
    """Passes permitted requests on to an application, and answers the others itself.

    Args:
        app: The application.
        token: The token that every request must have, as a bearer token or as the password of a
            browser's dialogue; None: none is needed.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        if scope["method"] != "GET":
            return PlainTextResponse("read-only\n", 405, {"allow": "GET"})
        if self._token is None:
            host = headers.get("host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if name not in OWN_NAMES:
                return PlainTextResponse("not a name of this machine\n", 421)
            return None
        shown = _shown(headers.get("authorization", b""))
        if not hmac.compare_digest(shown, self._token.encode()):
            return PlainTextResponse("a token is needed\n", 401, ASK)
        return None


def _shown(authorization: bytes) -> bytes:
    """Returns the token in a request's header."""
    kind, _, value = authorization.strip().partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
