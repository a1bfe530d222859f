"""Who is answered: this machine, under its own names, by whoever knows the page's token.

Other users of the machine reach loopback too, so records are shown to whoever has the token alone.
It stands behind the # of the address, which no browser sends, and comes back as a header that no
page of another site can set.
"""

from __future__ import annotations

import hmac

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# This page's own style, script and answers; nothing from elsewhere, and nobody may frame it.
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
# What holds no record, so that a browser can ask for it before the script knows the token.
OPEN = {"/", "/label.css", "/label.js", "/words.js"}
# Of a posted answer: a tag of 62 characters for each word of a text of 10,000.
MOST_POSTED = 2**20


class LabelAccess:
    """Lets requests through to an application, or answers them itself.

    Args:
        app: The application.
        token: What whoever asks for records, or answers, must show.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
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
        # A page of another site could ask this machine under a name of its own (DNS rebinding).
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
