"""Reads the pooling from a sentence-transformers folder.

`modules.json` lists the modules after the network; the pooling's own folder has a `config.json`
with one flag per mode (up to version 5) or with `pooling_mode` (from version 6).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister.errors import ModelFileError
from cloister.models.config import VectorMode

# The supported modes, by their flag and by their name.
_MODES: dict[str, VectorMode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
}
# The folder of sentence-transformers' second module.
_POOLING = "1_Pooling"


def folder_pooling(folder: Path) -> tuple[VectorMode, bool, str] | None:
    """Returns mode, whether a normalization follows, and the file that says so; None: no file does.

    Args:
        folder: The base's folder.

    Raises:
        ModelFileError: The files cannot be read, or their pooling is not supported.
    """
    modules = folder / "modules.json"
    if modules.exists():
        listed = _read(modules)
        try:
            names = [str(module["type"]).rsplit(".", 1)[-1] for module in listed]
            path = next(
                m["path"] for m, name in zip(listed, names, strict=True) if name == "Pooling"
            )
        except (TypeError, KeyError, StopIteration) as error:
            raise _unread(modules) from error
        return _mode(folder / str(path) / "config.json"), "Normalize" in names, "modules.json"
    alone = folder / _POOLING / "config.json"
    if alone.exists():
        return _mode(alone), (folder / "2_Normalize").is_dir(), f"{_POOLING}/config.json"
    return None


def _mode(path: Path) -> VectorMode:
    config = _read(path)
    if not isinstance(config, dict):
        raise _unread(path)
    named = config.get("pooling_mode")
    if named is None:
        chosen = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    else:
        chosen = [named] if isinstance(named, str) else list(named)
    if len(chosen) == 1 and chosen[0] in _MODES:
        return _MODES[chosen[0]]
    raise ModelFileError(
        f"model.pooling: {path} pools in a way that is not supported "
        f"({', '.join(map(str, chosen)) or 'none'}); set model.pooling to mean, cls or last"
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unread(path) from error


def _unread(path: Path) -> ModelFileError:
    return ModelFileError(
        f"model.pooling: {path} cannot be read; set model.pooling to the right mode"
    )
