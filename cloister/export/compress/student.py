"""Loads another base as the student of a finished model, with a head of its own and no adapter."""

from __future__ import annotations

from dataclasses import replace

from cloister.errors import UsageError
from cloister.export.forms.finished import Finished
from cloister.models.config import LoraConfig, ModelConfig
from cloister.training.workspace import open_workspace

# The smallest adapter that changes nothing: its only column of B is zero.
NO_ADAPTER = LoraConfig(r=1, top_layers=1, train="b")


def open_student(teacher: Finished, base: str) -> Finished:
    """Loads another base for the task of a finished model.

    Args:
        teacher: The finished model.
        base: The student's folder, GGUF file or hub id.

    Returns:
        The student, without an adapter; its head outputs zeros until it is trained.

    Raises:
        ModelFileError: The base does not exist, or cannot be loaded for this task.
        UsageError: The base does not fit the task, or a student cannot be taught this task.
    """
    task, about = teacher.task, teacher.about
    if task.kind in ("recommendation", "retrieval"):
        raise UsageError(
            f"student: the outputs of {task.kind} are compared with vectors of its own base, which "
            "another base does not have; drop layers of its own base instead"
        )
    model = ModelConfig(base=base)
    workspace = open_workspace(model, NO_ADAPTER, about.task, about.task.labels, about.seed)
    if task.record_kind in ("tokens", "messages") and (
        workspace.tokenizer.get_vocab() != teacher.workspace.tokenizer.get_vocab()
    ):
        raise UsageError(
            f"student: {task.kind} is taught token by token, and {base} cuts texts into other "
            "tokens; choose a base with the same tokenizer"
        )
    network = workspace.network.to("cpu").float().eval()
    network.is_float32 = True
    student = Finished(teacher.folder, replace(about, model=model, lora=NO_ADAPTER), workspace)
    student.unload()
    return student
