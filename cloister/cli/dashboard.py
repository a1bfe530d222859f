"""`cloister dashboard`: pages for the coordinator, the site's operator and the auditor."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloister.serving.app import View


def dashboard(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="COORDINATOR|SITE.TOML|LEDGER",
            help="A coordinator's folder, a site's file, or a ledger.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 8090,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLOISTER_DASHBOARD_TOKEN",
            help="What everybody must show; needed beyond this machine.",
        ),
    ] = None,
    static: Annotated[
        Path | None, typer.Option(help="Write the page as one file instead of serving it.")
    ] = None,
) -> None:
    """Show what runs, what left and what was spent; read only, no external links.

    Example: cloister dashboard coordinator
    """
    import ipaddress

    from cloister.errors import BadFileError, UsageError
    from cloister.files import write_whole

    if static is not None:
        try:
            write_whole(static, _view(source, live=False).page().encode())
        except OSError as error:
            raise BadFileError(f"{static}: cannot be written ({error}); name another") from error
        typer.echo(f"{static}: one page, with everything in it")
        return
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(f"--host: {host!r} given; an address of this machine is needed") from error
    if not local and not token:
        raise UsageError(
            f"--host: {host} is reached from other machines; set CLOISTER_DASHBOARD_TOKEN to what "
            "its readers must show, and put TLS before it"
        )
    import uvicorn

    from cloister.serving.app import make_app

    app = make_app(_view(source, live=True), token)
    typer.echo(f"http://{host}:{port}/{'?token=…' if token else ''}", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)


def _view(source: Path, live: bool) -> View:
    from cloister.client.site_file import read_site
    from cloister.errors import UsageError
    from cloister.server.folder import ServerFolder
    from cloister.serving import facts, metrics, pages
    from cloister.serving.app import View

    if source.is_dir():
        folder = ServerFolder.open(source)

        def gathered() -> dict[str, object]:
            return facts.coordinator_facts(folder, datetime.now(UTC))

        return View(
            lambda: pages.coordinator_page(gathered(), live),
            lambda: metrics.coordinator_metrics(gathered(), datetime.now(UTC)),
        )
    if source.suffix == ".toml":
        file = read_site(source)
        return View(
            lambda: pages.site_page(facts.site_facts(file), live),
            lambda: metrics.site_metrics(facts.site_facts(file), datetime.now(UTC)),
        )
    if not source.exists():
        raise UsageError(f"{source}: nothing is here; a coordinator, a site.toml or a ledger")
    return View(lambda: pages.auditor_page(facts.auditor_facts(source), live))
