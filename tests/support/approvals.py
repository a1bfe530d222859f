"""A standing approval for sites, in tests that do not test approvals."""

import json
from collections.abc import Sequence


def standing(
    sha256: str,
    *,
    task: str = "sequence-classification",
    unit: str = "record",
    max_epsilon: float | str = "inf",
    max_rounds: int = 1000,
    until: str = "2100-01-01",
    labels: Sequence[str] | None = None,
    shared_noise: bool = False,
    votes: bool = False,
) -> str:
    """Lines of a `site.toml` that approve studies on a base; `labels` None: those of [records]."""
    lines = [
        "",
        "[[approvals.standing]]",
        f'base_sha256 = ["{sha256}"]',
        f'tasks = ["{task}"]',
        f'unit = "{unit}"',
        f"max_epsilon = {max_epsilon}",
        f"max_rounds = {max_rounds}",
        f"until = {until}",
        f"shared_noise = {json.dumps(shared_noise)}",
        f"votes = {json.dumps(votes)}",
    ]
    if labels is not None:
        lines.append(f"labels = {json.dumps(list(labels))}")
    return "\n".join([*lines, ""])
