"""The only function that lets transformers read a base's folder: code in the folder never runs.

A folder's `config.json` and `tokenizer_config.json` may name Python files of its own (`auto_map`),
and transformers then asks on the terminal whether to run them. Every `from_pretrained` of cloister
is called below, with the answer no: transformers' own class is used instead, and a folder that
needs its own code is refused. A folder that points elsewhere is refused too: an adapter, which
names another base, and an attention kernel from a hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as hf_logging

from cloister.errors import ModelFileError

# Files in which a folder may name its own code.
_SETTINGS = ("config.json", "tokenizer_config.json")
# Keys under which a configuration may name a kernel; one with a slash is fetched from a hub.
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def from_folder(kind: Any, folder: Path, **options: Any) -> Any:
    """Calls a transformers class's `from_pretrained` on a folder of this machine.

    Args:
        kind: `AutoConfig`, `AutoTokenizer` or an `AutoModel…` class.
        folder: The base's folder, from `find_base`.
        options: Further arguments.

    Raises:
        ModelFileError: The folder can only be read with its own code, or points elsewhere.
        OSError: A file is missing or cannot be read.
        ValueError: A file's content is not valid.

    Guarantees:
        Nothing is fetched, nothing is asked, and no Python file of the folder is imported.
    """
    _refuse_elsewhere(folder)
    try:
        return kind.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True, **options
        )
    except ValueError as error:
        named = own_code(folder)
        if not named:
            raise
        raise ModelFileError(
            f"model.base: {folder} needs its own Python code ({', '.join(named)}), which is never "
            f"run, and transformers cannot read it without that ({_first(error)}); choose a base "
            "of an architecture that transformers has, or convert it to one"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' progress bar and its report of weights that the task does not use."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def own_code(folder: Path) -> tuple[str, ...]:
    """Returns the Python code that a folder asks to run (`auto_map`), sorted, each once."""
    found: set[str] = set()
    for name in _SETTINGS:
        mapping = _settings(folder / name).get("auto_map")
        found |= set(_texts(mapping))
    return tuple(sorted(found))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]


def _refuse_elsewhere(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ModelFileError(
            f"model.base: {folder} is an adapter (adapter_config.json), which needs another base; "
            "give that base, or merge the two (peft's merge_and_unload) and give the result"
        )
    config = _settings(folder / "config.json")
    for key in _KERNELS:
        if "/" in str(config.get(key, "")):
            raise ModelFileError(
                f"model.base: {folder}/config.json asks for the kernel {config[key]!r}, which is "
                f"code from a hub and never run; remove {key} from config.json"
            )


def _settings(path: Path) -> Mapping[str, Any]:
    """Returns a JSON object; {}: there is none, for which transformers gives a better message."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
