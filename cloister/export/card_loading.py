"""Writes a card's section on how its adapter is loaded, with a script."""

from __future__ import annotations

import json

from cloister.export.snippets import Loading, loading_script
from cloister.names import counted
from cloister.tasks.registry import BUILT_IN


def loading_section(loading: Loading) -> str:
    """Returns the section.

    Args:
        loading: How base and adapter are loaded.
    """
    lines = ["## Loading\n"]
    if loading.layers is not None:
        lines.append(
            f"Use only the base's first {counted(loading.layers, 'layer')}, then its final norm if "
            "it has one: the study never computed the layers above, so the script removes them.\n"
        )
    if loading.pooling is not None:
        lines.append(f"A text is one vector by its {loading.pooling}.\n")
    if loading.around is not None:
        before, behind = (json.dumps(text, ensure_ascii=False) for text in loading.around)
        lines.append(f"A text is read between {before} and {behind}, which are never cut.\n")
    lines.append(
        f"Records were cut to {loading.max_length} tokens at their end. Beside the folder "
        "`adapter`:\n"
    )
    lines.append(
        "vLLM loads the folder as it is (`--enable-lora`), llama.cpp what `cloister export --gguf` "
        "writes of it.\n"
        if loading.kind == "causal-lm" and loading.method == "lora"
        else "vLLM and llama.cpp load LoRA alone; peft has this kind, as the script shows.\n"
        if loading.kind == "causal-lm"
        else "vLLM and llama.cpp have no place for its head (`head.safetensors`); the script has.\n"
    )
    if loading.kind not in BUILT_IN:
        lines.append(
            f"The task is the plug-in `{loading.kind}`, which says what the outputs mean: of the "
            "script below take the logits.\n"
        )
    return "\n".join([*lines, f"```python\n{loading_script(loading)}```\n"])
