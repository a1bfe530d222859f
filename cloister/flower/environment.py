"""The environment of every Flower process: nothing phones home, nothing is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# Flower's telemetry, its update check and `uv sync` of an app's dependencies are on by default.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def quiet_environment(home: Path) -> Mapping[str, str]:
    """This process's environment for a Flower process whose own files lie in `home`."""
    return {**os.environ, **QUIET, "FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1"}
