"""`cloister dashboard`: pages for the coordinator, the site's operator and the auditor."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from socket import socket

    from cloister.dashboard.sources import Source


def dashboard(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="COORDINATOR|SITE.TOML|LEDGER",
            help="A coordinator's folder, a site's file, a ledger, a bundle, or a folder of "
            "ledgers.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8090,
    token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file (mode 600) with the token that every reader must give; needed if "
            "--host is not this machine. Absent: CLOISTER_DASHBOARD_TOKEN in the environment.",
        ),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option(metavar="OUT_DIR", help="Write each page as one file instead of serving it."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help='The sites\' public keys: JSON, {"site": "hex", …}.')
    ] = None,
) -> None:
    """Show running studies, releases and spent ε as web pages; read-only.

    The pages load nothing from other servers.

    Example: cloister dashboard coordinator
    """
    from cloister.cli.keys import read_keys
    from cloister.dashboard.access_token import demand_token, read_token
    from cloister.dashboard.sources import open_source

    shown = open_source(source, read_keys(keys, []))
    if static is not None:
        _write(shown, static)
        return
    secret = read_token(token, os.environ)
    demand_token(host, secret)
    with listen(host, port) as place:
        shown.pages[0].facts(datetime.now(UTC))  # fail now if the page cannot be shown
        _serve(shown, secret, place, host, port)


def _write(source: Source, folder: Path) -> None:
    from cloister.errors import BadFileError
    from cloister.files import write_whole

    now = datetime.now(UTC)
    pages = {f"{page.name}.html": source.page(page, now, is_live=False) for page in source.pages}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            write_whole(folder / name, text.encode())
            typer.echo(str(folder / name))
    except OSError as error:
        raise BadFileError(f"{folder}: cannot be written ({error}); name another") from error


def listen(host: str, port: int) -> socket:
    """Listens at an address of this machine.

    Raises:
        NetworkError: Another process uses the port, or the address is not this machine's.
    """
    import socket

    from cloister.errors import NetworkError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise NetworkError(
            f"{host}:{port}: cannot listen there ({error.strerror}); choose another --port"
        ) from error


def _serve(source: Source, token: str | None, place: socket, host: str, port: int) -> None:
    import uvicorn

    from cloister.dashboard.access_token import is_loopback
    from cloister.dashboard.app import make_app

    at = f"[{host}]" if ":" in host else host
    typer.echo(f"http://{at}:{port}/ (Ctrl-C ends the dashboard)", err=True)
    if not is_loopback(host):
        typer.echo("not encrypted: put a TLS proxy in front of it, or reach it by ssh -L", err=True)
    config = uvicorn.Config(
        make_app(source, token),
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[place])
