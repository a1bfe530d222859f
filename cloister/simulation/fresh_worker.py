"""Starts a worker of a simulation in an interpreter of its own, where it cannot be a fork.

python -m cloister.simulation.fresh_worker QUESTIONS ANSWERS       two file descriptors

It is a module without classes: those of `__main__` have another name for the process that reads
their pickles.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from typing import NoReturn

import torch

from cloister.quiet import keep_quiet
from cloister.simulation.site_worker import end_after, log_to, serve


def main(questions: Connection, answers: Connection) -> NoReturn:
    """Runs the worker, which prepares the study from the recipe in its first question.

    Its standard input closes when the coordinator's process ends.
    """
    keep_quiet()
    log_to(answers)

    def work() -> None:
        setup = questions.recv()
        torch.set_num_threads(setup.threads)
        serve(questions, answers, setup)

    end_after(work, answers)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    read, write = (int(number) for number in sys.argv[1:3])
    main(Connection(read, writable=False), Connection(write, readable=False))
