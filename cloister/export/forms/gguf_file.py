"""Writes a chat's adapter as one GGUF file, which llama.cpp loads beside the base."""

from __future__ import annotations

from pathlib import Path

from cloister.export.forms.finished import Finished
from cloister.export.gguf_adapter import ARCHITECTURES, known, write_gguf

FILE = "adapter.gguf"


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if finished.network.head is not None:
        return "it has its own head, which an adapter of llama.cpp cannot hold"
    if (method := finished.workspace.method) != "lora":
        return f"llama.cpp loads only LoRA, and this adapter is {method}"
    kind = finished.network.base.config.model_type
    if kind not in ARCHITECTURES:
        return f"Cloister cannot write a GGUF adapter for a {kind}, only for {known()}"
    return None


def write(finished: Finished, folder: Path) -> None:
    """Writes `adapter.gguf` (see `export.gguf_adapter`)."""
    write_gguf(finished.folder, finished.network.base.config, folder / FILE)
