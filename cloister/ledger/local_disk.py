"""Refuses a ledger on a network file system, where locks and syncs are not reliable."""

from __future__ import annotations

from pathlib import Path

from cloister.errors import LedgerError

# Names as in /proc/self/mountinfo; fuse.* covers sshfs and similar ones.
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "gpfs",
    "beegfs",
    "9p",
    "ocfs2",
    "gfs2",
}


def refuse_network_file_system(path: Path, mounts: str | None = None) -> None:
    """Refuses a place on a network file system.

    Args:
        path: The ledger's path; the file need not exist.
        mounts: Text of /proc/self/mountinfo; None: this machine's. On systems without it nothing is
            refused.

    Raises:
        LedgerError: The path is on a network file system.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        except OSError:
            return
    folder = str(path.parent.resolve())
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    if kind in _NETWORK or kind.startswith("fuse."):
        raise LedgerError(
            f"{path}: on a network file system ({kind}), where locks and syncs are not reliable; "
            "keep the ledger on a local disk"
        )
