"""Holds the version of the model that is served, and replaces it while requests run."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.export.adapter_folder import adapter_folder
from cloister.files import bad_file
from cloister.models.config import BaseType
from cloister.registry.registry import open_registry
from cloister.serving.model import Model, load

# Hexadecimal digits of a version's name: 48 bits, so two versions hardly ever share a name.
SHOWN_DIGITS = 12
# Padded tokens of a pass on a CPU. 32 notes of 28 tokens took a core 10 ms each in four passes, by
# length, and 17 ms in one pass, padded to the longest (53) and larger than a core's cache.
CPU_TOKENS = 512


@dataclass(frozen=True)
class Version:
    """A loaded model under the name and digest by which callers see it.

    Attributes:
        name: The model's name for callers: the name of the given folder.
        digest: Identifies the version: SHA-256 over the adapter folder's files, shortened.
        model: Base, adapter and head.
        is_personal: Whether it is one site's own adapter, of a run's folder `personal/`.
    """

    name: str
    digest: str
    model: Model
    is_personal: bool = False


class Served:
    """Holds the version that computes the next batch.

    A batch reads `current` once, so one version computes all of its answers. `exchange` replaces
    the reference; a running batch keeps the version that it began with.

    Args:
        open_version: Loads the version that is in the service's folder now.
    """

    def __init__(self, open_version: Callable[[], Version]) -> None:
        self._open = open_version
        self._exchange = threading.Lock()
        self.current = open_version()

    def exchange(self) -> Version:
        """Loads the version that is in the folder now, and serves it from the next batch on.

        Requests are answered meanwhile. Calls run one after the other. Both versions are in
        memory while the new one is loaded.

        Raises:
            CloisterError: The version cannot be loaded; the present one stays in service.
        """
        with self._exchange:
            self.current = self._open()
            return self.current


def open_version(
    folder: Path, device: str | None, base: str | None, dtype: BaseType | None = None
) -> Version:
    """Loads a run's adapter and computes its digest.

    Args:
        folder: A finished run or an adapter's folder. If it is a link, the target at this moment
            is loaded.
        device: As for `cloister.serving.model.load`.
        base: As for `cloister.serving.model.load`.
        dtype: As for `cloister.serving.model.load`.

    Raises:
        CloisterError: As for `cloister.serving.model.load`.
    """
    place = folder.resolve()
    model = _in_small_passes(load(place, device, base=base, dtype=dtype))
    is_personal = place.parent.name == "personal"
    digest = digest_of(adapter_folder(place))
    return Version(folder.name or place.name, digest, model, is_personal)


def open_promoted(
    registry: str,
    model: str,
    stage: str,
    device: str | None,
    base: str | None,
    dtype: BaseType | None = None,
) -> Version:
    """Loads the version that is promoted now, after checking its files against their hash.

    Args:
        registry: A folder or fsspec URL.
        model: The model's name in the registry, which callers use too.
        stage: The stage whose promoted version is loaded, such as `production`.
        device: As for `cloister.serving.model.load`.
        base: As for `cloister.serving.model.load`.
        dtype: As for `cloister.serving.model.load`.

    Raises:
        CloisterError: Nothing is promoted there, the registry is damaged, or as for
            `cloister.serving.model.load`.
    """
    opened = open_registry(registry)
    sha256 = opened.current(model, stage)
    with opened.fetched(sha256) as folder:
        loaded = _in_small_passes(load(folder, device, base=base, dtype=dtype))
        return Version(model, sha256[:SHOWN_DIGITS], loaded)


def _in_small_passes(model: Model) -> Model:
    """Lowers the tokens of a pass on a CPU, so that a pass holds texts of similar length."""
    if model.workspace.network.device.type != "cpu":
        return model
    return replace(model, max_tokens=min(model.max_tokens, CPU_TOKENS))


def digest_of(folder: Path) -> str:
    """Returns a digest of an adapter folder: SHA-256 of its files' names and hashes, shortened.

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
