"""Settings of libraries that must stand in the environment before these are loaded."""

from __future__ import annotations

import os

# Nothing phones home, nothing asks for updates, and tokenizers do not warn about forks.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def keep_quiet() -> None:
    """Sets what the environment does not set itself; call it before flwr is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
