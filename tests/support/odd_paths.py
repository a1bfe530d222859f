"""Paths that are not regular files: one of each kind, with the words of the error message."""

import os
from pathlib import Path

ODD_KINDS = {
    "pipe": "is a pipe, not a file",
    "device": "is a device, not a file",
    "folder": "is a folder, not a file",
    "loop": "is a link to itself",
    "broken link": "is a link to a file that does not exist",
}


def odd_path(kind: str, path: Path) -> Path:
    """Creates a pipe, device, folder or link at a path."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case _:
            path.symlink_to("nothing-here")
    return path
