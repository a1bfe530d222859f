"""Where a ledger may lie: on a disk of this machine, whose locks and syncs hold."""

from __future__ import annotations

from pathlib import Path

from cloister.errors import LedgerError

# As /proc/self/mountinfo names them; fuse.* covers sshfs and its kin.
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
    """Refuses a place whose locks and syncs do not hold.

    Args:
        path: Where the ledger is or will be.
        mounts: Text of /proc/self/mountinfo; None: this machine's. Elsewhere than on Linux nothing
            is known and nothing is refused.

    Raises:
        LedgerError: The file system is a network's.
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
            f"{path}: on a network file system ({kind}), where locks and syncs do not hold; keep "
            "the ledger on a local disk"
        )
