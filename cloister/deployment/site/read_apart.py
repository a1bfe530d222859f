"""Reads a site's records in a separate process, for a service that only needs to know if it works.

The libraries that read tables take half a gigabyte, which a service would keep for ever.

    python -m cloister.deployment.site.read_apart site.toml
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cloister.client.site_file import SiteFile, read_site
from cloister.errors import BadFileError, CloisterError, DataError, UsageError


def read_apart(file: SiteFile) -> str:
    """Reads and checks a site's records as `read_records` does, in another process.

    Returns:
        The result in words, with true numbers, for the operator only.

    Raises:
        CloisterError: They cannot be read; with the type and text of the error in `read_records`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "cloister.deployment.site.read_apart", str(file.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        kinds: dict[int, type[CloisterError]] = {2: UsageError, 3: DataError}
        said = done.stderr.strip() or f"{file.data}: its reader ended with code {done.returncode}"
        raise kinds.get(done.returncode, BadFileError)(said)
    return done.stdout.strip()


def main(path: Path) -> int:
    """Reads the records of a `site.toml` and prints the result; returns an exit code."""
    from cloister.deployment.site.records import read_records

    try:
        found = read_records(read_site(path))
    except CloisterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
