"""Finds the device that a network computes on: the one that `[machine]` names, or a detected one.

There is no silent fallback: a GPU that is named but does not exist is an error. If none is named,
the device is the GPU if torch can use one, else the CPU, and commands print which (`device_words`).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from cloister.errors import RefusedError

log = logging.getLogger(__name__)

# Device files of NVIDIA's and AMD's drivers, which exist whether or not torch can use the GPU.
DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/kfd"))

# cuBLAS is deterministic with a workspace of a fixed size, one of these (its manual, "Results
# reproducibility"), read when its first handle is made; torch refuses products with another.
CUBLAS, CUBLAS_FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def fix_cublas() -> None:
    """Sets a fixed workspace for cuBLAS; call it before anything is computed on a GPU.

    Raises:
        RefusedError: The environment sets another workspace, with which results would not repeat.
    """
    found = os.environ.setdefault(CUBLAS, CUBLAS_FIXED[0])
    if found not in CUBLAS_FIXED:
        raise RefusedError(
            f"{CUBLAS}: {found!r} in the environment; private training needs results that repeat, "
            f"which needs {' or '.join(CUBLAS_FIXED)}: set one of these, or unset the variable"
        )


def find_device(asked: str | None) -> torch.device:
    """Returns the device of `machine.device`, or a detected one.

    Args:
        asked: `machine.device`: `cpu`, `cuda`, `cuda:N` or `mps`; None: detected.

    Raises:
        RefusedError: The device does not exist, or torch cannot use it; or a CUDA GPU's results
            would not repeat (`fix_cublas`).
    """
    device = _found(asked)
    if device.type == "cuda":
        fix_cublas()
    return device


def _found(asked: str | None) -> torch.device:
    if asked is None:
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if found.type == "cpu" and unused_gpu():
            log.warning("%s", unused_gpu())
        return found
    device = torch.device(asked)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RefusedError(
            f"machine.device: {asked} given, but torch {torch.__version__} finds no usable CUDA "
            f"GPU here; {_remedy()} (the CPU is not used instead)"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RefusedError(
            f"machine.device: {asked} given, but torch finds {torch.cuda.device_count()} GPU(s) "
            "here; name one of these, numbered from 0"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RefusedError(
            'machine.device: mps given, but torch can use no GPU of a Mac here; set "cpu"'
        )
    return device


def check_devices(device: torch.device, processes: int) -> None:
    """Refuses more processes than GPUs, because each process needs its own.

    Raises:
        RefusedError: There are fewer GPUs than processes.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else processes
    if there < processes:
        raise RefusedError(
            f"machine.processes: {processes} given, and each needs its own GPU, but torch finds "
            f"{there} GPU(s) here; set machine.processes to {there} or fewer"
        )


def unused_gpu() -> str:
    """Returns a warning if a GPU's driver is installed but torch cannot use the GPU; else empty."""
    if torch.cuda.is_available() or not any(path.exists() for path in DRIVERS):
        return ""
    return (
        f"a GPU's driver is installed, but torch {torch.__version__} can use no GPU, so the CPU is "
        f'used; {_remedy()}; or set machine.device = "cpu" to confirm the CPU'
    )


def device_words(device: torch.device) -> str:
    """Returns a device with its model's name, as `cuda:0 (NVIDIA H200)`."""
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"


def free_bytes(device: torch.device) -> int | None:
    """Returns a GPU's free memory in bytes; None for other devices."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def _remedy() -> str:
    """Returns the remedy that most likely helps."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this build of torch is for CPUs only: install the one of locks/cuda.txt"
    return (
        "run nvidia-smi as the user that trains; under systemd put deploy/systemd/gpu.conf "
        "beside the unit, which gives it access to the device files"
    )
