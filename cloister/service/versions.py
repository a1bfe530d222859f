"""The version of a model that is served now, and its exchange for another while requests run."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloister.export.adapter_folder import adapter_folder
from cloister.files import bad_file
from cloister.registry.registry import open_registry
from cloister.serving.model import Model, load

# Hexadecimal digits that name a version: 48 bits, so that no two versions of a service are alike.
SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Version:
    """A loaded model.

    Attributes:
        name: What callers call it: the name of the folder that was given.
        digest: SHA-256 over the adapter folder's files, shortened: which version it is.
        model: Base, adapter and head.
        is_personal: Whether it is one site's own adapter, of a run's folder `personal/`.
    """

    name: str
    digest: str
    model: Model
    is_personal: bool = False


class Served:
    """Holds the version that the next batch is computed with.

    A batch reads `current` once, so all of its answers are of one version. An exchange replaces
    the reference: batches that run end on the version with which they began.

    Args:
        open_version: Loads the version that stands at the service's folder now.
    """

    def __init__(self, open_version: Callable[[], Version]) -> None:
        self._open = open_version
        self._exchange = threading.Lock()
        self.current = open_version()

    def exchange(self) -> Version:
        """Loads what stands at the folder now, and serves it from the next batch on.

        One exchange at a time; requests go on meanwhile. Both versions are in memory while the new
        one is loaded.

        Raises:
            CloisterError: It cannot be loaded: the version served so far stays.
        """
        with self._exchange:
            self.current = self._open()
            return self.current


def open_version(folder: Path, device: str | None, base: str | None) -> Version:
    """Loads a run's adapter, with the digest of what was loaded.

    Args:
        folder: A finished run or an adapter's folder; a link is followed now.
        device: As for `cloister.serving.model.load`.
        base: As for `cloister.serving.model.load`.

    Raises:
        CloisterError: As for `cloister.serving.model.load`.
    """
    place = folder.resolve()
    model = load(place, device, base=base)
    is_personal = place.parent.name == "personal"
    digest = digest_of(adapter_folder(place))
    return Version(folder.name or place.name, digest, model, is_personal)


def open_promoted(
    registry: str, model: str, stage: str, device: str | None, base: str | None
) -> Version:
    """Loads the version that is promoted now, its files checked against their hash.

    Args:
        registry: A folder or fsspec URL.
        model: The model's name in it, by which callers know it.
        stage: Where it was promoted to.
        device: As for `cloister.serving.model.load`.
        base: As for `cloister.serving.model.load`.

    Raises:
        CloisterError: Nothing is promoted there, the registry is damaged, or as for
            `cloister.serving.model.load`.
    """
    opened = open_registry(registry)
    sha256 = opened.current(model, stage)
    with opened.fetched(sha256) as folder:
        return Version(model, sha256[:SHOWN_DIGITS], load(folder, device, base=base))


def digest_of(folder: Path) -> str:
    """Names an adapter folder's contents: SHA-256 over its files' names and hashes, shortened.

    Raises:
        BadFileError: A file cannot be read.
    """
    total = hashlib.sha256()
    try:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{content}  {file.name}\n".encode())
    except OSError as error:
        raise bad_file(error, "read") from error
    return total.hexdigest()[:SHOWN_DIGITS]
