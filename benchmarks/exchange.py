"""Bytes of whole messages: a FlowerTune-style exchange, float32 both ways, ÷ ours with int8.

    python -m benchmarks.exchange

The adapter is that of RoBERTa-base with rank 8 on query and value, both factors, and a head of ten
classes: 302,602 values. FlowerTune's baseline sends PEFT's state dict as Flower arrays in float32,
in both directions and in every round. Each message is measured as protocol buffers, with all of its
fields; names and shapes are the same on both sides. Values are normal: no length depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from benchmarks.figure import Figure
from cloister.adapter.compact import encode_compact
from cloister.adapter.tensors import Adapter
from cloister.protocol.exchange import SIGNATURE_BYTES, RoundReply, RoundRequest, Status
from cloister.training.question import Question

LAYERS, HIDDEN, RANK, CLASSES = 12, 768, 8, 10
# A study of thirty rounds; in the first third, where it has them, the head alone trains.
ROUNDS, PROBE_ROUNDS = 30, 10
HASH = "0" * 64


def adapter_of(seed: int) -> Adapter:
    """An adapter of that size with normal values."""
    rng = np.random.default_rng(seed)
    at = "base_model.model.roberta.encoder.layer"
    tensors = {
        "head.weight": rng.normal(size=(CLASSES, HIDDEN)),
        "head.bias": rng.normal(size=CLASSES),
    }
    for layer in range(LAYERS):
        for module in ("query", "value"):
            name = f"{at}.{layer}.attention.self.{module}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(size=(RANK, HIDDEN))
            tensors[f"{name}.lora_B.weight"] = rng.normal(size=(HIDDEN, RANK))
    return Adapter(tensors)


def flower_bytes(adapter: Adapter) -> int:
    """Bytes of the adapter as Flower arrays in float32."""
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in adapter.items()})
    return int(recorddict_to_proto(RecordDict({"arrays": record})).ByteSize())


def request_bytes(payload: bytes) -> int:
    """Bytes of a signed question with an adapter."""
    request = RoundRequest(
        HASH, ROUNDS, payload, to="hospital", seen=HASH, signature=bytes(SIGNATURE_BYTES)
    )
    return _record_bytes(request.fields())


def reply_bytes(payload: bytes) -> int:
    """Bytes of a signed answer with an update."""
    reply = RoundReply(
        "hospital", ROUNDS, Status.TRAINED, payload, 8.0, HASH, bytes(SIGNATURE_BYTES)
    )
    return _record_bytes(reply.fields())


def _record_bytes(fields: dict[str, object]) -> int:
    record = ConfigRecord(dict(fields))  # type: ignore[arg-type]
    return int(recorddict_to_proto(RecordDict({"cloister": record})).ByteSize())


def study_bytes(probe_rounds: int) -> tuple[int, int]:
    """Bytes up and down of one site in a study, with int8 in both directions."""
    start, kept = adapter_of(0), adapter_of(0)
    head = frozenset(name for name in start if name.startswith("head."))
    trained = (*[head] * probe_rounds, frozenset(start), frozenset(start))
    question = Question(start, trained, "int8", True)
    up = down = 0
    for number in range(1, ROUNDS + 1):
        down += request_bytes(question.encode(kept, number))
        update = adapter_of(number).select(trained[min(number, len(trained)) - 1])
        up += reply_bytes(encode_compact(update, "int8"))
        kept = question.rounded(kept.replace(kept.select(update) + update), number)
    return up, down


def figures() -> Iterator[Figure]:
    """The ratios, by direction."""
    theirs = ROUNDS * flower_bytes(adapter_of(0))
    for probe_rounds in (0, PROBE_ROUNDS):
        told = f", {probe_rounds} of {ROUNDS} rounds of the head alone" if probe_rounds else ""
        up, down = study_bytes(probe_rounds)
        yield Figure(f"bytes up, FlowerTune ÷ int8{told}", theirs / up, 4.0, "at least")
        yield Figure(f"bytes down, FlowerTune ÷ int8{told}", theirs / down, 4.0, "at least")
    adapter = adapter_of(0)
    header = len(encode_compact(adapter, "int8")) - adapter.size
    yield Figure("header and scales of a message in %", 100 * header / adapter.size, 1.0, "at most")


if __name__ == "__main__":
    for figure in figures():
        print(figure)
