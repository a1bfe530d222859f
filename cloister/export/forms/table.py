"""The table of formats for `cloister model export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import UsageError
from cloister.export.forms import gguf_file, gguf_merged, merged, onnx_file, quantized, sentence
from cloister.export.forms.finished import Finished, Logits


@dataclass(frozen=True)
class Form:
    """A way to write a finished model.

    Attributes:
        library: The library that loads it, by its name on the hub (`library_name`).
        loading: Lines of Python that load it, for its card; the hub's name of the task replaces
            the word PIPELINE.
        problem: Returns why a study's result cannot be written in this form; None: it can.
        write: Writes the form's files into a folder.
        read: Returns the function from inputs to logits that the written files compute; None: no
            library here runs them.
        is_exact: Whether it gives the study's logits up to float32 rounding.
    """

    library: str
    loading: str
    problem: Callable[[Finished], str | None]
    write: Callable[[Finished, Path], None]
    read: Callable[[Finished, Path], Logits] | None
    is_exact: bool = True


_ONNX = """\
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
session = onnxruntime.InferenceSession("model.onnx")
names = {one.name for one in session.get_inputs()}
given = tokenizer(["…"], padding=True, truncation=True, return_tensors="np")
logits = session.run(["logits"], {k: v for k, v in given.items() if k in names})[0]
"""
FORMS: Mapping[str, Form] = {
    "merged": Form(
        "transformers",
        "from transformers import pipeline\n\n"
        'answer = pipeline("PIPELINE", model=".", tokenizer=".")\n',
        merged.problem,
        merged.write,
        merged.read,
    ),
    "sentence-transformers": Form(
        "sentence-transformers",
        "from sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer(".")\nvectors = model.encode(["…"])\n'
        'outputs = model.encode(["…"], output_value=None)  # with the head\'s logits: "scores"\n',
        sentence.problem,
        sentence.write,
        sentence.read,
    ),
    "onnx": Form("onnx", _ONNX, onnx_file.problem, onnx_file.write, onnx_file.read),
    "int8": Form(
        "onnx", _ONNX, onnx_file.problem, quantized.write_int8, onnx_file.read, is_exact=False
    ),
    "int4": Form(
        "onnx", _ONNX, onnx_file.problem, quantized.write_int4, onnx_file.read, is_exact=False
    ),
    "gguf": Form(
        "gguf",
        "# llama-cli -m BASE.gguf --lora adapter.gguf\n",
        gguf_file.problem,
        gguf_file.write,
        None,
    ),
    "gguf-merged": Form(
        "gguf",
        "# llama-cli -m model.gguf; smaller: llama-quantize model.gguf small.gguf q4_k_m\n",
        gguf_merged.problem,
        gguf_merged.write,
        gguf_merged.read,
    ),
}


def form_of(name: str) -> Form:
    """Returns the format of a name.

    Raises:
        UsageError: No format has this name.
    """
    if name not in FORMS:
        raise UsageError(f"--format {name}: unknown format; choose from {', '.join(FORMS)}")
    return FORMS[name]


def check_fits(finished: Finished, names: list[str]) -> None:
    """Refuses formats that cannot hold a study's result, before anything is written.

    Raises:
        UsageError: A format does not fit; the message gives the reasons and the formats that do.
    """
    problems = {name: FORMS[name].problem(finished) for name in names}
    reasons = [f"--format {name}: {why}" for name, why in problems.items() if why is not None]
    if reasons:
        fitting = [name for name, form in FORMS.items() if form.problem(finished) is None]
        raise UsageError(
            "; ".join(reasons)
            + (f"; these fit: {', '.join(fitting)}" if fitting else "; no other format fits")
        )
