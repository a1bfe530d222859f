"""The environment of Flower's processes: no telemetry, no update check, no installation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cloister.deployment.proxies import sparing_loopback

# Flower's telemetry, its update check and `uv sync` of an app's dependencies are on by default. Its
# gRPC servers open ports of their own; they are off by default, whatever a shell says.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_INTERNAL_GRPC_CONTROL_API": "0",
    "FLWR_INTERNAL_GRPC_FLEET_API": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Variables that keep Hugging Face's libraries offline.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def quiet_environment(home: Path, *, offline: bool = False) -> Mapping[str, str]:
    """This process's environment, adapted for a Flower process with its files in `home`.

    Args:
        home: Flower's own folder.
        offline: Whether models and data are on this machine; then the hub is never contacted.

    Guarantees:
        Calls to this machine's loopback never go through a proxy.
    """
    own = {"FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1", **(OFFLINE if offline else {})}
    return sparing_loopback({**os.environ, **QUIET, **own})
