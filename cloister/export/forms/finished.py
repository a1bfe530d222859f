"""Loads a finished study's network for export: float32, on the CPU, adapter merged or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cloister.data.records import (
    ChatRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.errors import UsageError
from cloister.export.adapter_folder import (
    ReleaseFacts,
    adapter_folder,
    load_released,
    read_released,
)
from cloister.export.own_parts import check_whole
from cloister.models.center_texts import ENGLISH
from cloister.models.network import Network
from cloister.tasks.one_text import text_ids
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.scoring import Scoring
from cloister.tasks.task import Batch, Example, Task
from cloister.training.workspace import Workspace

# A function from a base's inputs (`Network.inputs`) to logits: [B, C] or [B, T, C].
Logits = Callable[[Mapping[str, Tensor]], Tensor]
# Built-in sentences on which every form is compared with the study's network.
PROBES = ENGLISH[:12]
# Records per batch of this comparison: more than one, so that padding is tested.
PROBE_BATCH = 4
# The folder of a run in which each site's own adapter has a folder (`simulation.finish`).
PERSONAL = "personal"


@dataclass
class Finished:
    """The result of a finished study, loaded.

    Attributes:
        folder: The adapter's folder.
        about: The facts stated in the adapter's folder.
        workspace: Base, adapter and head, in float32 on the CPU.
        is_merged: Whether the adapter has been merged into the base's weights.
    """

    folder: Path
    about: ReleaseFacts
    workspace: Workspace
    is_merged: bool = False

    @property
    def network(self) -> Network:
        """The network: base, adapter and head."""
        return self.workspace.network

    @property
    def task(self) -> Task:
        """The study's task, with its labels and tokenizer."""
        return self.workspace.task

    @property
    def can_merge(self) -> bool:
        """Whether the adapter can be merged into the base's weights.

        The vectors of prompt and prefix tuning cannot, as no weight holds them. BitFit's biases
        are not merged either: a base may have no bias to add them to.
        """
        lora = self.about.lora
        return not lora.is_prompt and lora.method != "bitfit"

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Computes the study's logits."""
        with torch.no_grad():
            found: Tensor = self.network(**inputs)
        return found

    def merge(self) -> None:
        """Merges the adapter into the base's weights, if `can_merge`."""
        if self.can_merge and not self.is_merged:
            # peft merges: W + s·B·A, or IA³'s scalings.
            self.network.backbone.merge_adapter()
            self.is_merged = True

    def unload(self) -> None:
        """Merges the adapter and takes it off, so that the base's modules are its own again."""
        if not self.is_merged:
            self.network.backbone.merge_and_unload()
            self.is_merged = True


def open_finished(place: Path, base: str | None = None) -> Finished:
    """Loads a finished run's adapter for export.

    Args:
        place: A finished run's folder, or an adapter's.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.

    Raises:
        UsageError: The task comes from a plug-in, each site kept a part of the adapter, or the
            base is quantized.
        BadFileError: There is no adapter, or a damaged one.
        ModelFileError: The base is missing or not the one that was trained on.
    """
    folder = adapter_folder(place)
    about = read_released(folder)
    if about.task.plugin is not None:
        raise UsageError(
            f"{place}: its task {about.task.kind} comes from a plug-in, and only the plug-in's "
            "code knows what the outputs mean; share the adapter's folder and its card's script"
        )
    check_whole(folder, about.lora)
    if about.task.encoder == "bi":
        raise UsageError(
            f"{place}: it encodes the two texts of a pair separately "
            '(task.encoder = "bi"), and no format can hold the comparison of two vectors; share '
            "the adapter's folder and its card's script, or serve it with cloister serve"
        )
    if about.model.quantization != "none":
        raise UsageError(
            f"{place}: its base was quantized to {about.model.quantization}, and an adapter cannot "
            "be merged into quantized weights; serve it with cloister serve, or train on the "
            "unquantized base (model.quantization = none)"
        )
    about, workspace = load_released(folder, base)
    network = workspace.network.to("cpu").float().eval()
    network.is_float32 = True
    _fold_items(network)
    return Finished(folder, about, workspace)


def _fold_items(network: Network) -> None:
    """Combines a recommender's head and its items' vectors E [C, H] into one linear layer.

    E (W h + b) = (E W) h + E b."""
    if network.items is None:
        return
    vectors, head = network.items.double(), network.head
    assert isinstance(head, nn.Linear)  # as `load_released` makes it
    items, hidden = len(vectors), head.in_features
    whole = nn.Linear(hidden, items)
    with torch.no_grad():
        whole.weight.copy_(vectors @ head.weight.double())
        whole.bias.copy_(vectors @ head.bias.double())
    network.head, network.items = whole.requires_grad_(False), None


def probe_batches(finished: Finished) -> list[Batch]:
    """Returns the built-in sentences as batches of the study's task.

    Shorter and longer sentences share a batch, which tests padding. The last batch is one sentence
    cut in half, so that another batch size and length is tested too."""
    task = finished.task
    if isinstance(task, Recommendation):  # a record has ids only; the base reads the items' texts
        ids = (text_ids(task.tokenizer, text, task.max_length, task.pad_id) for text in PROBES)
        examples = [Example(one, 0) for one in ids]
    else:
        examples = [task.encode(record) for record in probe_records(task)]
    groups = [
        examples[first : first + PROBE_BATCH] for first in range(0, len(examples), PROBE_BATCH)
    ]
    return [task.collate(group) for group in (*groups, [_half(examples[0])])]


def _half(example: Example) -> Example:
    length = (len(example.input_ids) + 1) // 2
    target = example.target
    return replace(
        example,
        input_ids=example.input_ids[:length],
        target=target if isinstance(target, int) else target[:length],
        segments=example.segments[:length],
    )


def probe_records(task: Task) -> list[Record]:
    """Returns the built-in sentences as records of a task; their labels have no meaning."""
    return [_record(task, text, PROBES[place - 1]) for place, text in enumerate(PROBES)]


def _record(task: Task, text: str, other: str) -> Record:
    if task.record_kind == "pairs":
        return PairRecord(text, task.labels[0], text_b=other)
    if task.record_kind == "tokens":
        words = tuple(text.split())
        return TokenRecord(words, ("O",) * len(words))
    if task.record_kind == "messages":
        return ChatRecord((Message("user", text), Message("assistant", other)))
    if isinstance(task, Scoring):
        return ScoreRecord(text, task.scale.low)
    return (
        LabelsRecord(text, ()) if task.record_kind == "labels" else TextRecord(text, task.labels[0])
    )


def recipe_file(finished: Finished) -> Path | None:
    """Returns the recipe of the run that the adapter's folder is in, or that a compressed model was
    made from; None if there is no run.
    """
    return recipe_beside(finished.folder, finished.about)


def recipe_beside(folder: Path, about: ReleaseFacts) -> Path | None:
    """Returns the recipe of the run that an adapter's folder is in: see `recipe_file`.

    Callers recognize the study's private files by this recipe. Without it they cannot refuse any.
    """
    made_of = about.compressed
    if made_of is not None and made_of.run is not None:
        file = Path(made_of.run) / "recipe.toml"
        return file if file.is_file() else None
    real = folder.resolve()  # `.` or a link names the same run
    is_own = real.parent.name == PERSONAL and real.name != "adapter"
    file = (real.parent.parent if is_own else real.parent) / "recipe.toml"
    return file if (is_own or real.name == "adapter") and file.is_file() else None
