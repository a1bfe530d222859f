"""Flower's SuperNode with its Runtime API on a unix socket instead of a port.

    python -m cloister.deployment.flower.supernode --superlink HOST:PORT --authority FILE --key FILE
        --socket PATH --secret FILE

It opens one TLS connection to the coordinator, through the environment's proxy if there is one.
Only our agent reaches the socket. Tested against Flower 1.41
(`tests/deployment/flower/test_contract.py`).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import start_client_internal

from cloister.deployment.flower.sockets import listening, read_secret

# Seconds for the Runtime API to finish its answers when the SuperNode ends; as in Flower.
ENDING = 5.0


def make_server(states: NodeStateFactory, secret: bytes) -> uvicorn.Server:
    """Makes the Runtime API's server; the caller provides its socket."""
    app = create_app(state_factory=states, superexec_auth_secret=secret)
    return uvicorn.Server(uvicorn.Config(app, ws="none", access_log=False))


def main() -> None:
    """Serves until SIGTERM, or until the coordinator refuses this node."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--superlink", required=True)
    for name in ("authority", "key", "socket", "secret"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    secret = read_secret(given.secret)
    key = load_ssh_private_key(given.key.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        sys.exit(f"{given.key}: not a node's key; cloister site join --rotate makes a new one")
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    _serve(make_server(states, secret), given.socket)
    start_client_internal(
        state_factory=states,
        server_address=given.superlink,
        node_config={},
        root_certificates=given.authority.read_bytes(),
        insecure=False,
        authentication_keys=(key, key.public_key()),
        max_retries=None,
        max_wait_time=None,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_api_address="",
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
    )


def _serve(server: uvicorn.Server, path: Path) -> None:
    """Serves in a thread of its own, until the process ends."""
    sockets = [listening(path)]
    thread = threading.Thread(target=server.run, args=(sockets,), name="runtime", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.05)
    if not server.started:
        sys.exit(f"{path}: the Runtime API does not start")

    def end() -> None:
        server.should_exit = True
        thread.join(ENDING)

    add_exit_handler(end)


if __name__ == "__main__":
    main()
