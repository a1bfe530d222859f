"""The gate's own answers: their headers, and refusals."""

from __future__ import annotations

import json
from urllib.parse import quote

from starlette.responses import Response

from cloister import __version__

VERSION = {"cloister-version": __version__}


def member_headers(site: str) -> dict[str, str]:
    """Returns the headers of every answer to a member."""
    return {**VERSION, "cloister-member": quote(site, safe=" ")}


def refusal(code: int, why: str, site: str | None = None) -> Response:
    """A refusal with its reason; it ends the connection, so that the place is free."""
    headers = {**(VERSION if site is None else member_headers(site)), "connection": "close"}
    return Response(json.dumps({"detail": why}), code, headers, media_type="application/json")
