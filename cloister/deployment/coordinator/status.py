"""The status of a coordinator: its service, its members and its runs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import all_runs
from cloister.deployment.coordinator.members import read_members
from cloister.deployment.coordinator.rotation import rotation_of
from cloister.deployment.enrolment.authority import days_left, fingerprint
from cloister.deployment.enrolment.authority_key import key_state
from cloister.deployment.processes import is_cloister
from cloister.server.run_directory import RunDirectory


def read_service(folder: ServerFolder) -> dict[str, Any] | None:
    """The running service; None if none runs."""
    try:
        document: dict[str, Any] = json.loads(folder.service.read_text(encoding="utf-8"))
        pid = int(document["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if is_cloister(pid) else None


def runs_of(folder: ServerFolder) -> list[dict[str, Any]]:
    """Every run with its status and last round."""
    rows = []
    for run in all_runs(folder.runs):
        metrics = RunDirectory(folder.run(run.name)).metrics()
        rows.append(
            {
                "name": run.name,
                "standing": run.standing.value,
                "round": metrics[-1]["round"] if metrics else 0,
                "sites": list(run.sites),
                "error": run.error,
            }
        )
    return rows


def status_of(folder: ServerFolder, now: datetime) -> dict[str, Any]:
    """Returns everything that `cloister server status` shows."""
    service = read_service(folder)
    seen_file = folder.state / "seen.json"
    seen = json.loads(seen_file.read_text("utf-8")) if seen_file.exists() else {}
    certificate = (folder.path / "endpoint.crt").read_bytes()
    return {
        "name": folder.config.name,
        "address": folder.config.address,
        "running": service is not None,
        "processes": [
            {"name": name, **child}
            for name, child in (service or {"children": {}})["children"].items()
        ],
        "certificate_days": days_left(certificate, now),
        "authority": _authority(folder),
        "sites": [
            {
                "site": site,
                "standing": member.standing.value,
                "expires": member.expires,
                "seen": seen.get(site, {}).get("seen"),
                "bytes": seen.get(site, {}).get("bytes", 0),
            }
            for site, member in sorted(read_members(folder.members).items())
        ],
        "runs": runs_of(folder),
    }


def _authority(folder: ServerFolder) -> dict[str, Any]:
    """Returns whether the authority's key is encrypted here, and which authority follows it."""
    following = rotation_of(folder)
    waits = following is not None and not following.switched
    return {
        "key": key_state(folder.path).value,
        "fingerprint": fingerprint(folder.certificate.read_bytes()),
        "next": following.paper.fingerprint if following and waits else None,
        "former_until": following.paper.former_until if following else None,
    }
