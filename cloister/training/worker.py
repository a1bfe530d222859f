"""Runs a worker process of `training.team`: opens the study's base, and answers with clipped sums.

python -m cloister.training.worker QUESTIONS ANSWERS        two file descriptors
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch

from cloister.adapter.tensors import Adapter
from cloister.models.state import write_adapter
from cloister.quiet import keep_quiet
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.proof_key import depends_on
from cloister.training.team import AskDepends, AskSum, Failed, Opening
from cloister.training.workspace import Workspace, open_workspace


def main(questions: Connection, answers: Connection) -> None:
    """Answers questions until their pipe is closed."""
    threading.Thread(target=_end_with_the_site, daemon=True).start()
    keep_quiet()
    workspace: Workspace | None = None
    while True:
        try:
            question = questions.recv()
        except EOFError:
            return
        try:
            if isinstance(question, Opening):
                workspace = _opened(question)
                found: Any = None
            else:
                assert workspace is not None  # the first question opens the workspace
                found = _answer(workspace, question)
        except Exception as error:
            found = Failed(f"{type(error).__name__}: {error}")
        answers.send(found)


def _end_with_the_site() -> None:
    """Ends this process at once when the site's process ends, which has the other end of stdin."""
    sys.stdin.buffer.read()
    os._exit(0)


def _opened(opening: Opening) -> Workspace:
    torch.set_num_threads(opening.threads)
    return open_workspace(
        opening.model,
        opening.lora,
        opening.task,
        opening.labels,
        opening.seed,
        frozen_cache_gib=opening.frozen_cache_gib,
        device=opening.device,
        attention=opening.attention,
        gradient_checkpointing=opening.gradient_checkpointing,
        adversarial_radius=opening.adversarial_radius,
    )


def _answer(workspace: Workspace, question: AskDepends | AskSum) -> Any:
    if isinstance(question, AskDepends):
        return depends_on(workspace, question.plan, question.config, question.max_adapter_value)
    network = workspace.network
    write_adapter(network, Adapter(question.tensors))
    workspace.train_names(question.trained)
    kept = network.apart() if question.apart else nullcontext()
    with kept, per_record_hooks(network):
        total = clipped_gradient_sum(
            network,
            workspace.task,
            question.units,
            question.bound,
            question.shapes,
            question.grid,
        )
    return [tensor.cpu().numpy() for tensor in total.tensors]


if __name__ == "__main__":
    read, write = (int(number) for number in sys.argv[1:3])
    main(Connection(read, writable=False), Connection(write, readable=False))
