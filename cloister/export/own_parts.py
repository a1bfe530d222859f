"""Tells an adapter of which each site kept its own part from one that is whole."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from cloister.errors import BadFileError, UsageError
from cloister.models.config import LoraConfig
from cloister.models.lora import factor


def check_whole(folder: Path, lora: LoraConfig) -> None:
    """Checks that an adapter's folder holds a model, not only what sites share of theirs.

    With `lora.train = "b-kept"` a run's `adapter/` has every B at zero, so that its low-rank parts
    change nothing; `personal/SITE/` beside it has that site's own B.

    Args:
        folder: The adapter's folder.
        lora: What it states of its adapters.

    Raises:
        UsageError: Every B is at zero, because each site kept its own, or this site never trained.
        BadFileError: The weights are missing or damaged.
    """
    if lora.train != "b-kept":
        return
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise BadFileError(
            f"{folder}: adapter_model.safetensors is missing or damaged ({error}); copy the whole "
            "folder again"
        ) from error
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if factor(name) == "b"):
        raise UsageError(
            f"{folder}: each site kept a part of its own adapter (lora.train = b-kept), and here "
            "that part is at its start, zero, so that this is no model by itself; give the adapter "
            "of a site that trained, personal/SITE in the run's folder where it was made"
        )
