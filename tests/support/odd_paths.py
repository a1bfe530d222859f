"""What may lie at a path beside a file: one of each kind, and what it is called."""

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
    """Puts something of a kind at a path."""
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
