"""Writes a chat's adapter as one GGUF file, which llama.cpp loads beside the base."""

from __future__ import annotations

from pathlib import Path

from cloister.export.forms.finished import Finished
from cloister.export.gguf_adapter import ARCHITECTURES, known, write_gguf

FILE = "adapter.gguf"


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if finished.network.head is not None:
        return "its outputs are a head's of its own, for which llama.cpp's adapters have no place"
    if (method := finished.workspace.method) != "lora":
        return f"llama.cpp loads LoRA's factors alone, and this adapter is {method}"
    kind = finished.network.base.config.model_type
    if kind not in ARCHITECTURES:
        return f"a GGUF adapter of a {kind} is not written here ({known()} are)"
    return None


def write(finished: Finished, folder: Path) -> None:
    """Writes `adapter.gguf` (see `export.gguf_adapter`)."""
    write_gguf(finished.folder, finished.network.base.config, folder / FILE)
