"""Unpacks a base that is a GGUF file once, into a folder of the user's cache.

transformers reads the file (`gguf_file`); its weights become float32 safetensors beside its
configuration and tokenizer, and the folder is then a base like any other. Such a base is identified
by the SHA-256 of the GGUF file, which determines everything in the folder.
"""

from __future__ import annotations

import fcntl
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cloister import owner_only
from cloister.bounds import shortened
from cloister.errors import ModelFileError
from cloister.files import bad_file, stamp_of, write_whole
from cloister.models.gguf_header import GgufHeader, read_header
from cloister.models.pretrained import from_folder, quiet
from cloister.models.splitting import check_splitting, mend_splitting
from cloister.owner_only import private_folder
from cloister.printable import one_line

# Written last: the GGUF from which a folder was made, and the SHA-256 of every other file in it.
RECORD = "unpacked.json"
# Longest message of a library that is repeated, in characters.
_MOST_SHOWN = 200
# Most numbers that a network with few weights has beside them (rotary frequencies, masks): they
# depend on sizes that the header bounds, and are checked before they are allocated.
_SPARE_NUMBERS = 2**24


def cache_folder() -> Path:
    """Returns the folder of unpacked bases, `cloister/bases` in the user's cache."""
    return owner_only.cache_folder("bases")


def unpacked(file: Path) -> Path:
    """Returns the folder to which a GGUF file unpacks; the first call makes it.

    Args:
        file: The GGUF file.

    Raises:
        ModelFileError: It is damaged, or of an architecture or tokenizer that cannot be read from a
            GGUF; or the extra `llm` is missing, or the cache cannot be written.

    Guarantees:
        A folder is complete or does not exist, and other processes wait for the one that makes it.
    """
    digest = _sha256_of(file)
    folder = cache_folder() / digest
    if (folder / RECORD).is_file():
        return folder
    header = read_header(_with_reader(file))
    _refuse(file, header)
    try:
        with _alone(folder) as part:
            if not (folder / RECORD).is_file():
                _check_room(part.parent, header)
                _unpack(file, header, part)
                _finish(file, digest, part, folder)
    except OSError as error:
        raise ModelFileError(
            f"{bad_file(error, 'written')}; set XDG_CACHE_HOME to a folder that can be, or unpack "
            f"{file} on another machine and give that folder as model.base"
        ) from error
    return folder


def unpacked_sha256(folder: Path) -> str | None:
    """Returns the SHA-256 of the GGUF that a cached folder was made from; None for other folders.

    Only folders of the user's own cache are trusted: a record elsewhere could name any file.

    Raises:
        ModelFileError: A file in it was changed after it was unpacked.
    """
    record = folder / RECORD
    if folder.resolve().parent != cache_folder().resolve() or not record.is_file():
        return None
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        files = {path.name: stamp_of(path).sha256 for path in folder.iterdir() if path != record}
        if files == said["files"] and said["gguf"] == folder.name:
            return folder.name
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ModelFileError(
        f"model.base: {folder} was changed after it was unpacked; remove it and run this again"
    )


def _with_reader(file: Path) -> Path:
    """Returns the file, or refuses it if the package that reads GGUF is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelFileError(
            f"model.base: {file} is a GGUF, which needs the package gguf; "
            "install cloister with the extra `llm`"
        )
    return file


def _sha256_of(file: Path) -> str:
    try:
        return stamp_of(file).sha256
    except OSError as error:
        raise ModelFileError(f"model.base: {bad_file(error, 'read')}") from error


def _refuse(file: Path, header: GgufHeader) -> None:
    """Refuses files that transformers would read wrongly without an error."""
    if "rope_freqs.weight" in header.tensors:
        raise ModelFileError(
            f"model.base: {file} scales its rotary embedding by a table (rope_freqs.weight), which "
            "transformers ignores in a GGUF, so long texts would be computed wrongly; "
            "give the base's own folder of safetensors"
        )
    check_splitting(file, header)


def _check_room(folder: Path, header: GgufHeader) -> None:
    needed, free = 4 * header.elements, shutil.disk_usage(folder).free
    if needed > free:
        raise ModelFileError(
            f"model.base: unpacking needs {needed / 2**30:.1f} GiB, but {folder} has only "
            f"{free / 2**30:.1f} GiB; free some, or set XDG_CACHE_HOME to another disk"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Makes an empty folder beside a path, for one process at a time; the others wait."""
    private_folder(folder.parent)
    part = folder.with_name(f".{folder.name}.part")
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(part, ignore_errors=True)  # left by a killed process
        part.mkdir(mode=0o700)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _unpack(file: Path, header: GgufHeader, part: Path) -> None:
    # In an own folder: transformers would also read other files beside it.
    source, made = part / "source", part / "made"
    source.mkdir()
    (source / "base.gguf").symlink_to(file.resolve())
    try:
        # The reader draws a progress bar in spite of transformers' settings.
        with quiet(), redirect_stderr(io.StringIO()):
            _make(file, header, source, made)
    except (ModelFileError, OSError):
        raise
    except Exception as error:  # the reader may raise any error
        why = one_line(str(error).strip() or type(error).__name__, _MOST_SHOWN)
        raise ModelFileError(
            f"model.base: {file} cannot be read as a {_shown(header.architecture)} ({why}); "
            "give the base's own folder of safetensors"
        ) from error


def _make(file: Path, header: GgufHeader, source: Path, made: Path) -> None:
    from transformers import GgufConfig

    name = "base.gguf"
    config = from_folder(AutoConfig, source, gguf_file=name)
    if config.is_encoder_decoder or type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelFileError(
            f"model.base: {file} is a {_shown(header.architecture)}, but only decoders are read "
            "from a GGUF; give the base's own folder of safetensors"
        )
    _check_numbers(file, header, config)
    tokenizer = from_folder(AutoTokenizer, source, gguf_file=name)
    mend_splitting(tokenizer, header)
    tokenizer.save_pretrained(made)
    model, info = from_folder(
        AutoModelForCausalLM,
        source,
        gguf_file=name,
        config=config,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise ModelFileError(
            f"model.base: {file} lacks {min(info['missing_keys'])} and "
            f"{len(info['missing_keys']) - 1} more weights, which would start at random; "
            "get a complete file"
        )
    model.save_pretrained(made)


def _check_numbers(file: Path, header: GgufHeader, config: Any) -> None:
    """Refuses a network whose number of weights differs from the file's."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    others = sum(buffer.numel() for buffer in model.buffers())
    held = sum(map(prod, header.tensors.values()))
    if weights != held or others > max(weights, _SPARE_NUMBERS):
        raise ModelFileError(
            f"model.base: {file} has {held:,} weights, but the {config.model_type} that it "
            f"describes has {weights:,}: transformers would leave some out, or start some at "
            "random; give the base's own folder of safetensors"
        )


def _finish(file: Path, digest: str, part: Path, folder: Path) -> None:
    if _sha256_of(file) != digest:
        raise ModelFileError(f"model.base: {file} changed while it was read; run this again")
    made = part / "made"
    files = {path.name: stamp_of(path).sha256 for path in sorted(made.iterdir())}
    record = json.dumps({"gguf": digest, "files": files}, indent=1, sort_keys=True)
    write_whole(made / RECORD, record.encode())
    shutil.rmtree(folder, ignore_errors=True)  # no record file: incomplete, or not cloister's
    made.replace(folder)


def _shown(name: str) -> str:
    return shortened(name).strip("'")
