"""Flower's SuperLink on a unix socket, as `flower-superlink` would run it on a port.

    python -m cloister.deployment.flower.superlink --socket PATH --secret FILE --database FILE

It makes Flower's own application with the settings of `flower-superlink --enable-supernode-auth
--isolation process`, a state that writes less (`link_state`) and a shorter way for frequent calls
(`direct_calls`), and serves it at a socket. Nodes sign each request and executors show a secret
as usual; the Control interface has no authentication, so anybody who reaches the socket can use it.
Tested against Flower 1.41 (`tests/deployment/flower/test_contract.py`).
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.http_logging import get_uvicorn_log_config
from flwr.supercore.logger import console_handler
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.main import create_app

from cloister.deployment.flower.direct_calls import DirectCalls
from cloister.deployment.flower.link_state import in_turn
from cloister.deployment.flower.sockets import listening, read_secret
from cloister.errors import CloisterError


def settings(secret: Path, database: Path) -> SuperLinkLifespanConfig:
    """Settings: nodes authenticate, executors show a secret, nothing is installed, no port is
    opened.

    Raises:
        BadFileError: The secret cannot be read.
    """
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=read_secret(secret),
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(database),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )


def make_server(secret: Path, database: Path) -> uvicorn.Server:
    """Makes the SuperLink's server; the caller provides its socket.

    Raises:
        BadFileError: The secret cannot be read.
        UsageError: This Flower has other parts than the tested one.
    """
    app = create_app(settings(secret, database), SuperLinkLifespan)
    in_turn(app.state.linkstate_factory)
    logs = get_uvicorn_log_config(console_handler.level)
    return uvicorn.Server(uvicorn.Config(DirectCalls(app), ws="none", log_config=logs))


def main() -> None:
    """Serves the SuperLink's interfaces at the socket until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("socket", "secret", "database"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    try:
        server = make_server(given.secret, given.database)
    except CloisterError as error:
        sys.exit(f"the SuperLink does not start: {error}")
    gc.freeze()  # libraries' objects stay for good: the collector need not look at them again
    server.run(sockets=[listening(given.socket)])


if __name__ == "__main__":
    main()
