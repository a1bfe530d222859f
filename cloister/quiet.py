"""Sets environment variables of libraries that must be set before these are loaded."""

from __future__ import annotations

import os

# No telemetry, no checks for updates, and no warnings of tokenizers about forks.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def keep_quiet() -> None:
    """Sets the variables that the environment does not have; call it before flwr is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
