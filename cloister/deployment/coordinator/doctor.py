"""Checks that only members and the service's user reach a coordinator; each check has a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.loopback import (
    ENTERED,
    REFUSED,
    attempt_as,
    by_hand,
    is_root,
    listening_ports,
    openings,
    stranger,
)
from cloister.deployment.coordinator.status import read_service


class CheckOutcome(StrEnum):
    """The outcome of a check."""

    PASS = "PASS"
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class CheckResult:
    """One check, its outcome and what to do about it.

    Attributes:
        name: The check's name.
        verdict: The outcome.
        detail: What was found.
        remedy: What to do; empty if it passed.
    """

    name: str
    verdict: CheckOutcome
    detail: str
    remedy: str = ""


def examine(folder: ServerFolder) -> Iterator[CheckResult]:
    """Checks a coordinator's folder and its running service."""
    yield _modes(folder)
    yield from _ports(folder)
    yield _stranger(folder)


def _modes(folder: ServerFolder) -> CheckResult:
    try:
        found = openings(folder)
    except OSError as error:
        return CheckResult(
            "owners and modes",
            CheckOutcome.UNKNOWN,
            str(error),
            "run this as the user of the service",
        )
    if found:
        return CheckResult(
            "owners and modes",
            CheckOutcome.FAIL,
            "; ".join(found),
            f"chmod -R go= {folder.path}, on a file system that supports owners and modes",
        )
    return CheckResult(
        "owners and modes", CheckOutcome.PASS, f"{folder.state} is accessible to its owner only"
    )


def _ports(folder: ServerFolder) -> Iterator[CheckResult]:
    service = read_service(folder)
    if service is None:
        yield CheckResult(
            "ports",
            CheckOutcome.UNKNOWN,
            "the service is not running",
            f"cloister server start {folder.path}",
        )
        return
    allowed = {"gate": [folder.config.place[1]]}
    for name, child in service["children"].items():
        if child["pid"] is None:
            continue
        try:
            ports = listening_ports(child["pid"])
        except OSError as error:
            yield CheckResult(
                f"ports of {name}",
                CheckOutcome.UNKNOWN,
                str(error.strerror or error),
                "run this as the user of the service, on Linux",
            )
            continue
        more = [port for port in ports if port not in allowed.get(name, [])]
        if more:
            yield CheckResult(
                f"ports of {name}",
                CheckOutcome.FAIL,
                f"listens at {', '.join(map(str, more))}",
                "this is a bug in cloister: report it, and close these ports until it is fixed",
            )
        else:
            listed = f"only the sites' port {ports[0]}" if ports else "listens on none"
            yield CheckResult(f"ports of {name}", CheckOutcome.PASS, listed)


def _stranger(folder: ServerFolder) -> CheckResult:
    """Tries as another user to reach the SuperLink, which file modes should prevent."""
    name, path, other = "another user", folder.superlink, stranger()
    if not path.exists():
        return CheckResult(
            name,
            CheckOutcome.UNKNOWN,
            "the SuperLink does not listen",
            f"cloister server start {folder.path}, then try again",
        )
    if not is_root() or other is None:
        return CheckResult(
            name,
            CheckOutcome.UNKNOWN,
            "only root can test it as another user",
            f"run this as root, or have root type: {by_hand(path)}; it must print closed",
        )
    try:
        outcome = attempt_as(other, path)
    except OSError as error:
        return CheckResult(name, CheckOutcome.UNKNOWN, str(error), "try it by hand")
    if outcome == REFUSED:
        return CheckResult(
            name, CheckOutcome.PASS, f"{other.pw_name} tried to connect and was refused"
        )
    if outcome == ENTERED:
        return CheckResult(
            name,
            CheckOutcome.FAIL,
            f"{other.pw_name} connected to {path}",
            f"chmod 0700 {folder.state}; if that does not help, move the folder to a local disk",
        )
    return CheckResult(
        name,
        CheckOutcome.UNKNOWN,
        f"{other.pw_name}'s attempt gave no result ({outcome})",
        "try it by hand",
    )
