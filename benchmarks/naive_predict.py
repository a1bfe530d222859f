"""A classifier's service as a person would write it in an afternoon: the network behind starlette.

    python -m benchmarks.naive_predict FOLDER

transformers and peft load the base and its adapter, as the script on the adapter's card does; texts
are answered one after another, without padding. `benchmarks.serving` measures `cloister serve`
against it.
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
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModel, AutoTokenizer

from cloister.export.adapter_folder import read_released
from cloister.models.base import find_base


def make_app(folder: Path) -> Starlette:
    """The service of an adapter's folder, whose base is a MiniLM of sentence-transformers."""
    about = read_released(folder)
    base = find_base(about.model.base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    plain: Any = AutoModel.from_pretrained(base, dtype=torch.float32)
    network: Any = PeftModel.from_pretrained(plain, folder).eval()
    head = load_file(folder / "head.safetensors")
    one_at_a_time = threading.Lock()

    def classify(text: str) -> dict[str, Any]:
        with one_at_a_time, torch.inference_mode():
            batch = tokenizer(
                text, truncation=True, max_length=about.task.max_length, return_tensors="pt"
            )
            states = network(**batch).last_hidden_state
            pooled = torch.nn.functional.normalize(states.mean(dim=1)) * states.shape[2] ** 0.5
            logits = torch.nn.functional.linear(pooled, head["weight"], head["bias"])
        shares = dict(zip(about.task.labels, logits[0].softmax(dim=0).tolist(), strict=True))
        return {"label": max(shares, key=shares.__getitem__), "probabilities": shares}

    async def predict(request: Request) -> JSONResponse:
        texts = (await request.json())["inputs"]
        found = [await asyncio.to_thread(classify, text) for text in texts]
        return JSONResponse({"predictions": found})

    return Starlette(routes=[Route("/v1/predict", predict, methods=["POST"])])


if __name__ == "__main__":
    app = make_app(Path(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/ (naive)", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
