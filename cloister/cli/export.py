"""`cloister export`: writes an adapter for runtimes other than transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    adapter: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")
    ],
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a GGUF adapter, which llama.cpp loads."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the base model; absent: the adapter's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write an adapter for llama.cpp, and check whether vLLM can load the adapter.

    Example: cloister export runs/clinics --gguf clinics.gguf
    """
    from cloister.export.adapter_folder import adapter_folder, read_released
    from cloister.export.gguf_adapter import write_gguf
    from cloister.export.own_parts import check_whole
    from cloister.export.vllm_rules import vllm_problems
    from cloister.models.base import find_base
    from cloister.models.kinds import read_config

    folder = adapter_folder(adapter)
    about = read_released(folder)
    check_whole(folder, about.lora)
    modules = None
    if gguf is not None:
        modules = write_gguf(folder, read_config(find_base(base or about.model.base)), gguf)
    problems = vllm_problems(folder)
    if as_json:
        written = None if gguf is None else {"file": str(gguf), "modules": modules}
        typer.echo(json.dumps({"adapter": str(folder), "gguf": written, "vllm": problems}))
        return
    if gguf is not None:
        typer.echo(f"{gguf}: {modules} adapted modules; llama-cli -m BASE.gguf --lora {gguf}")
    for problem in problems:
        typer.echo(f"vLLM does not load it: {problem}")
    if not problems:
        typer.echo(f"vLLM loads it: vllm serve BASE --enable-lora --lora-modules NAME={folder}")
