"""Another base as the student of a finished model: it gets a head of its own, and no adapter."""

from __future__ import annotations

from dataclasses import replace

from cloister.errors import UsageError
from cloister.export.forms.finished import Finished
from cloister.models.config import LoraConfig, ModelConfig
from cloister.training.workspace import open_workspace

# An adapter that changes nothing: its one column of B is zero. The smallest that there is.
NO_ADAPTER = LoraConfig(r=1, top_layers=1, train="b")


def open_student(teacher: Finished, base: str) -> Finished:
    """Loads another base for the task of a finished model.

    Args:
        teacher: The finished model.
        base: The student's folder, GGUF file or hub id.

    Returns:
        The student, without an adapter; its head gives zeros.

    Raises:
        ModelFileError: The base is not there, or cannot be loaded for this task.
        UsageError: It does not fit the task, or cannot learn this one.
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
