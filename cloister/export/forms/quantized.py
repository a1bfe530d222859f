"""Writes the ONNX file with quantized weights: 8 bits (dynamic activations), or 4 bits in blocks.

`int8`: weight matrices are int8 with a scale for each output; activations are rounded to 8 bits by
their own range at each call (onnxruntime's `quantize_dynamic`).
`int4`: weight matrices have 4 bits with a scale for each block of 32 along the inputs; activations
stay float32 (onnxruntime's `MatMulNBitsQuantizer`).

Why not torchao: its int8 layers run on a CPU only inside transformers' classes, which cannot hold
most heads. Its 4-bit weights (0.18.0) need a GPU, and those of its `IntxWeightOnlyConfig` take a
whole byte each, so they save nothing against int8.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloister.export.forms import onnx_file
from cloister.export.forms.finished import Finished

# Weights that share a scale: the block size of llama.cpp's Q4_0 and of onnxruntime on CPUs.
BLOCK = 32
_WHOLE = "whole.onnx"


def write_int8(finished: Finished, folder: Path) -> None:
    """Writes the file with 8-bit weights."""
    source = _whole(finished, folder)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quietly():
        quantize_dynamic(
            source, folder / onnx_file.FILE, per_channel=True, weight_type=QuantType.QInt8
        )
    source.unlink()


def write_int4(finished: Finished, folder: Path) -> None:
    """Writes the file with 4-bit weights."""
    source = _whole(finished, folder)
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quietly():
        quantizer: Any = MatMulNBitsQuantizer(
            onnx.load(source), block_size=BLOCK, is_symmetric=True
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(folder / onnx_file.FILE))
    source.unlink()


def _whole(finished: Finished, folder: Path) -> Path:
    onnx_file.write(finished, folder)
    return (folder / onnx_file.FILE).rename(folder / _WHOLE)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences onnxruntime's advice on calibration, which dynamic quantization does not need."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
