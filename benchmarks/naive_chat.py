"""A chat service as a person would write it in an afternoon: `generate` behind starlette.

    python -m benchmarks.naive_chat FOLDER

transformers and peft load the base and its adapter; requests are answered one after another.
`benchmarks.serving_chat` measures `cloister serve` against it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import uvicorn
from peft import PeftModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloister.export.adapter_folder import read_released
from cloister.models.base import find_base


def make_app(folder: Path) -> Starlette:
    """The service of an adapter's folder."""
    base = find_base(read_released(folder).model.base)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    plain: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(plain, folder).eval()
    one_at_a_time = threading.Lock()

    def reply(body: dict[str, Any]) -> str:
        with one_at_a_time, torch.inference_mode():
            asked = tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            output = model.generate(
                **asked,
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        new = output[0, asked["input_ids"].shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True))

    async def complete(request: Request) -> JSONResponse:
        text = await asyncio.to_thread(reply, await request.json())
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": text}}]})

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


if __name__ == "__main__":
    app = make_app(Path(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]} (naive)", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
