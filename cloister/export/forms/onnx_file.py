"""Writes base, adapter and head as one ONNX file: `model.onnx`, from token ids to logits.

Inputs: `input_ids`, `attention_mask` and, for a base with segment embeddings, `token_type_ids`, all
int64 [batch, length] of any size. Output: `logits`, float32 [batch, outputs] or [batch, length,
outputs].

It uses torch.onnx's tracing exporter: on the tests' bases it took 1 to 2 s, the exporter based on
torch.export 12 to 15 s, with the same result. A trace can freeze a value that depends on the traced
sizes, so the file is compared with the network at other sizes before it appears (`forms.writing`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloister.errors import UsageError
from cloister.export.forms.classifier_head import state_outputs
from cloister.export.forms.finished import Finished, Logits, probe_batches
from cloister.export.forms.merged import save_tokenizer
from cloister.models.layers import without_cache
from cloister.models.network import Network

FILE = "model.onnx"
# Opset version: the first with layer norm as one operation; onnxruntime reads it from 1.12 on.
OPSET = 17
# Longest quotation of another library's error in our message, in characters.
MOST_SAID = 200


class _Traced(nn.Module):
    """A network's forward pass, written so that tracing freezes no size."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns the logits for ids, mask and, if the base reads them, segments."""
        network = self.network
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = dict(zip(names, tensors, strict=False))
        output = network.backbone(**inputs, **without_cache(network.backbone))
        if network.head is None:
            logits: Tensor = output.logits
            return logits[:, network.leading :]
        output.last_hidden_state = output.last_hidden_state[:, network.leading :]
        vectors: Tensor = output.last_hidden_state
        pooling = network.pooling
        if pooling is not None and pooling.mode == "last":
            last = inputs["attention_mask"].sum(dim=1) - 1
            width = vectors.shape[-1]
            vectors = vectors.gather(1, last[:, None, None].expand(-1, 1, width))[:, 0]
            if pooling.normalize:
                vectors = F.normalize(vectors, dim=1) * width**0.5
        elif pooling is not None:
            vectors = pooling(output, inputs["attention_mask"])
        scores: Tensor = network.head(vectors)
        return scores


def problem(finished: Finished) -> str | None:
    """Returns the reason why a study's result cannot be written in this form; None: it can."""
    if finished.about.lora.method == "prefix":
        return "a prefix is stored in each layer's cache, which the exporter cannot trace"
    return None


def write(finished: Finished, folder: Path) -> None:
    """Writes `model.onnx`, tokenizer and configuration.

    Raises:
        UsageError: onnx or onnxruntime is not installed, or the base cannot be traced.
    """
    _need_packages()
    finished.merge()
    network = finished.network
    inputs = network.inputs(probe_batches(finished)[0])
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    try:
        with _without_warnings():
            torch.onnx.export(
                _Traced(network).eval(),
                tuple(inputs.values()),
                str(folder / FILE),
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_axes={**axes, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = network.base.config.model_type
        raise UsageError(
            f"--format onnx: torch.onnx cannot trace this {kind} ({first}); choose merged"
        ) from error
    save_tokenizer(finished, folder)
    config: Any = copy.deepcopy(network.base.config)
    config.pad_token_id = finished.workspace.pad_id
    if network.head is not None:
        state_outputs(config, finished.task)
    config.save_pretrained(folder)


def _need_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed, which ONNX files need; run "
            'pip install "cloister[export]"'
        ) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences the exporter's warnings about each value that it treats as a constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _refused(kind: str) -> Iterator[None]:
    """Turns a failure of onnxruntime to load or run a trace into an error that names the base."""
    try:
        yield
    except Exception as error:  # onnxruntime's errors have no common class but Exception
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:MOST_SAID]
        raise UsageError(
            f"onnxruntime cannot run the trace of this {kind} ({first}), so the file is not "
            "written; choose another format"
        ) from error


def read(finished: Finished, folder: Path) -> Logits:
    """Returns the function that onnxruntime computes, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors are raised as exceptions too
    options.intra_op_num_threads = torch.get_num_threads()
    kind = finished.network.base.config.model_type
    with _refused(kind):
        session = onnxruntime.InferenceSession(
            str(folder / FILE), options, providers=["CPUExecutionProvider"]
        )
    names = {one.name for one in session.get_inputs()}

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in inputs.items() if name in names}
        with _refused(kind):
            return torch.from_numpy(session.run(["logits"], given)[0])

    return logits
