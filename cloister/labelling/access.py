"""Access control of the labelling page: only requests from this machine, with the page's token.

Other users of the machine can also reach the loopback address, so a request for records needs the
token. The token is in the part of the address after the #, which browsers never send. The page's
script sends it as a header, which pages of other origins cannot set.
"""

from __future__ import annotations

import hmac

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Allow only this page's own style, script and requests, and forbid other pages to frame it.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OWN_NAMES = {"localhost", "127.0.0.1"}
# Paths without records, which a browser requests before the script knows the token.
OPEN = {"/", "/label.css", "/label.js", "/words.js"}
# Largest posted answer in bytes: a tag of 62 characters for each of 10,000 words.
MOST_POSTED = 2**20


class LabelAccess:
    """Passes allowed requests on to an application and refuses all others.

    Args:
        app: The application.
        token: The token that a request for a record, or an answer, must have.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with the reason for the refusal."""
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
        host = headers.get("host", b"").decode("latin-1")
        # Check the host name: another site could let its own name point to this machine (DNS
        # rebinding), and its page would then count as the same origin.
        if host.partition(":")[0] not in OWN_NAMES:
            return PlainTextResponse("not a name of this machine\n", 421)
        if scope["path"] in OPEN and scope["method"] == "GET":
            return None
        shown = headers.get("authorization", b"").strip()
        if not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
            return PlainTextResponse("the page's token is needed\n", 401)
        if scope["method"] == "POST":
            length = headers.get("content-length", b"")
            if not length.isdigit() or len(length) > 9 or int(length) > MOST_POSTED:
                return PlainTextResponse("too long an answer\n", 413)
        return None
