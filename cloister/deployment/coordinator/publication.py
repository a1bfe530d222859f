"""What a coordinator states of the records that votes will choose: `publication.json` of a run.

It is kept with the run, because the records are written at its end, perhaps after a restart. No
site reads it, and the study's digest does not cover it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cloister.errors import BadFileError
from cloister.export.croissant import Publication
from cloister.files import bad_file, write_whole

PUBLICATION = "publication.json"


def keep_publication(run: Path, publication: Publication) -> None:
    """Writes it into a run's folder; nothing if nothing is stated.

    Raises:
        BadFileError: It cannot be written.
    """
    if publication == Publication():
        return
    try:
        write_whole(run / PUBLICATION, json.dumps(asdict(publication), indent=2).encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def kept_publication(run: Path) -> Publication:
    """Reads it from a run's folder; empty if nothing was stated.

    Raises:
        BadFileError: It cannot be read, or is damaged.
    """
    path = run / PUBLICATION
    try:
        kept = Publication(**json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(value, str) for value in asdict(kept).values()):
            raise TypeError("texts are needed")
    except FileNotFoundError:
        return Publication()
    except OSError as error:
        raise bad_file(error, "read") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFileError(f"{path}: damaged ({error}); restore it, or remove it") from error
    return kept
