"""Decides which authorities of its coordinator a site trusts: the invite's and its successors.

Beside the invite, `succession-N.json` are the accepted documents in order, and `authority.crt` has
every trusted certificate: two during an overlap, else one. That file depends only on invite,
documents and clock, so it can be recomputed.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cloister.deployment.enrolment.authority import compare_fingerprints
from cloister.deployment.enrolment.documents import content_of, read_invite
from cloister.deployment.enrolment.succession import Succession, certificates, read_succession
from cloister.errors import BadFileError, CloisterError, NetworkError, UsageError
from cloister.files import write_whole


def trusts(folder: Path, authority: bytes) -> bool:
    """Whether a certificate, or a successor of it by the accepted documents, is trusted now.

    Args:
        folder: The membership's folder.
        authority: The certificate in PEM.
    """
    pinned = _pinned(folder)
    line = [authority, *(paper.authority.encode() for paper in _line(folder, authority))]
    return any(link in pinned for pem in line for link in certificates(pem))


def settle(folder: Path, now: datetime) -> bool:
    """Removes an authority whose overlap has ended; returns whether the trusted ones changed.

    Raises:
        BadFileError: The invite is damaged, or the folder cannot be written.
        NetworkError: The invite is not from a trusted authority.
    """
    first = read_invite(folder / "invite.json", None).authority.encode()
    if not trusts(folder, first):
        raise NetworkError(
            f"{folder}: the invite is not from an authority that this site trusts; join again with "
            "the coordinator's invite"
        )
    current = [first]
    for paper in _line(folder, first):
        current = [] if paper.is_over(now) else current
        current.append(paper.authority.encode())
    path, content = folder / "authority.crt", b"".join(current)
    if path.read_bytes() == content:
        return False
    _write(path, content)
    return True


def take_succession(folder: Path, path: Path, fingerprint: str | None, now: datetime) -> Succession:
    """Trusts the coordinator's next authority, in addition to the present one until the overlap
    ends.

    Args:
        folder: The membership's.
        path: The succession document.
        fingerprint: The new authority's fingerprint, as the coordinator told it over another
            channel.
        now: The present time.

    Raises:
        UsageError: No fingerprint was given.
        NetworkError: The fingerprint differs, or no trusted authority signed the document.
        BadFileError: The site has joined no federation, the document is damaged, or the folder
            cannot be written.
    """
    if not (folder / "invite.json").exists():
        raise BadFileError(
            f"{folder}: this site has not joined a federation yet; use the coordinator's invite: "
            "it names the current authority"
        )
    invite, content = read_invite(folder / "invite.json", None), content_of(path)
    settle(folder, now)
    known = _line(folder, invite.authority.encode())
    line = [invite.authority.encode(), *(paper.authority.encode() for paper in known)]
    paper = read_succession(path, b"".join(line), content)
    if paper not in known:
        paper = read_succession(path, line[-1], content)
    if paper.coordinator != invite.coordinator:
        raise NetworkError(
            f"{path}: is from {paper.coordinator}, but this site has joined {invite.coordinator}"
        )
    if fingerprint is None:
        raise UsageError(
            "--fingerprint: missing; ask the coordinator over another channel (telephone) for the "
            f"new authority's and compare: this document's is {paper.fingerprint}"
        )
    compare_fingerprints(
        fingerprint,
        paper.fingerprint,
        f"{path}: its authority's fingerprint is {paper.fingerprint}, but {fingerprint} was given; "
        "somebody with the former authority's key wrote this document: do not use it, and tell the "
        "coordinator",
    )
    if paper not in known:
        _write(folder / f"succession-{len(_papers(folder)) + 1}.json", content)
    settle(folder, now)
    return paper


def _line(folder: Path, first: bytes) -> list[Succession]:
    """Returns the documents from an authority to its successors, each signed by the one before."""
    line: list[Succession] = []
    for path in _papers(folder):
        signer = line[-1].authority.encode() if line else first
        try:
            line.append(read_succession(path, signer))
        except CloisterError:  # from an earlier line, or damaged: it gives no trust
            continue
    return line


def _papers(folder: Path) -> list[Path]:
    return sorted(folder.glob("succession-*.json"), key=lambda path: (len(path.name), path.name))


def _pinned(folder: Path) -> list[bytes]:
    try:
        return certificates((folder / "authority.crt").read_bytes())
    except OSError:
        return []


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be written ({error}); correct this first") from error
