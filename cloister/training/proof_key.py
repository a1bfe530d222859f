"""Everything on which a machine's proof depends: a proof is valid where all of it is the same.

Proofs are kept (`training.kept_proofs`; a site's agent keeps its own), and a proof that is used
after something has changed would let records change each other's gradients. So each part that
chooses a kernel, a shape or an order of operations is named here: the network, what trains, the
shapes, the processor or GPU, the libraries, their switches, and Cloister's own code.

Values that only scale a gradient (the seed, the noise) are left out: with them no two studies would
share a proof.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cloister.models.network import Network
from cloister.privacy.plan import Plan
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.task import Task
from cloister.training.config import TrainingConfig
from cloister.training.room import CPU_TOKENS, room_for
from cloister.training.shapes import BatchShapes, candidates, records_at_an_edge
from cloister.training.trials import shared_grid
from cloister.training.workspace import Workspace

_PACKAGES = ("cloister", "torch", "transformers", "peft", "opacus", "tokenizers", "numpy")
# The rooms of this package that compute a gradient, with the modules of no room (`code_sha256`).
# A test checks that a proof imports nothing else of the package.
ROOMS = ("adapter", "data", "models", "privacy", "tasks", "training")
# Variables by which libraries, the C library and the loader choose kernels, allocators and threads;
# cuBLAS' own are fixed (`models.device`).
_KERNELS = (
    "MKL_",
    "ONEDNN_",
    "DNNL_",
    "OPENBLAS_",
    "OMP_",
    "KMP_",
    "ATEN_",
    "TORCH_",
    "CUDA_",
    "NVIDIA_",
    "PYTORCH_",
    "GOMP_",
    "TBB_",
    "NPY_",
    "LD_",
    "DYLD_",
    "GLIBC_",
    "MALLOC_",
)
# scikit-learn sets these when it is first loaded, which is after the coordinator's proof and before
# the sites'; neither chooses a kernel, and with them each study was proved twice.
_NO_KERNELS = frozenset({"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"})
# Lines of /proc/cpuinfo that identify the kind of processor.
_PROCESSOR = re.compile(
    r"^(vendor_id|cpu family|model|model name|stepping|flags|CPU \w+|Features)\s*:"
)


@cache
def version(name: str) -> str:
    """Returns a package's version; once for a process, as it loads the package once."""
    return metadata.version(name)


@cache
def code_sha256() -> str:
    """Returns a hash of Cloister's own code that computes gradients; once for a process.

    The version alone would miss edited sources.
    """
    package = Path(__file__).parents[1]
    files = [*package.glob("*.py"), *(f for room in ROOMS for f in (package / room).rglob("*.py"))]
    found = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        found.update(f"{file.relative_to(package)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def depends_on(
    workspace: Workspace, plan: Plan, config: TrainingConfig, max_adapter_value: float
) -> dict[str, Any]:
    """Everything that the outcome of `prove` depends on, by name."""
    network, task = workspace.network, workspace.task
    shapes = shapes_to_try(workspace, config)
    return {
        "base": workspace.base_sha256,
        "configuration": _configuration(network),
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "types": sorted({str(p.dtype) for p in network.parameters()}),
        "pooling": _pooling(network),
        "kept layers": network.prefix is not None,
        # Without a head, as before: keys of older proofs stay equal.
        **({"kept head inputs": True} if network.head_inputs is not None else {}),
        "computed again": network.checkpoints is not None,
        "attention": str(getattr(network.backbone.config, "_attn_implementation", None)),
        "scaling": _scaling(network),
        "sizes": {name: list(shape) for name, shape in sorted(workspace.start.shapes.items())},
        "trained": [sorted(names) for names in trained_sets(workspace, plan, config)],
        "task": [task.kind, len(task.labels), task.max_length, *getattr(task, "origin", ())],
        **({"weights": weights} if (weights := getattr(task, "weights", None)) else {}),
        **_public_layer(task),
        **({"log-ratios": True} if getattr(task, "dpo_beta", None) is not None else {}),
        **({"adversarial": radius} if (radius := network.adversarial_radius) else {}),
        "shapes": shapes.to_json(),
        "records": records_at_an_edge(config.expected_batch_size, len(shapes.counts)),
        "bound": plan.max_grad_norm,
        "grid": None if plan.sharing is None else shared_grid(workspace, plan),
        "max_adapter_value": max_adapter_value,
        "versions": {name: version(name) for name in _PACKAGES},
        "code": code_sha256(),
        "device": _device(network),
        "libc": list(platform.libc_ver()),
        "build": hashlib.sha256(torch.__config__.show().encode()).hexdigest(),
        "switches": _switches(),
        "variables": _variables(),
        "threads": torch.get_num_threads(),
    }


def _variables() -> dict[str, str]:
    """Returns the environment's variables that may choose a kernel."""
    names = (name for name in os.environ if name.startswith(_KERNELS) and name not in _NO_KERNELS)
    return {name: os.environ[name] for name in sorted(names)}


def _configuration(network: Network) -> str:
    """A hash of the base's configuration without its path: it has settings that no module's text
    shows, for example the number of heads."""
    values = network.backbone.config.to_dict()
    kept = {name: value for name, value in values.items() if not name.startswith("_name")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _scaling(network: Network) -> list[str]:
    """The factors by which modules, LoRA's among them, multiply what they compute."""
    found = (getattr(module, "scaling", None) for module in network.modules())
    return sorted({str(factor) for factor in found if isinstance(factor, int | float | dict)})


def _switches() -> dict[str, Any]:
    """Returns this process's settings of torch that choose between kernels and that
    `training.numerics` does not pin."""
    cuda = torch.backends.cuda
    return {
        "default type": str(torch.get_default_dtype()),
        "mkldnn": [torch.backends.mkldnn.is_available(), torch._C._get_mkldnn_enabled()],
        "attention": [
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ],
    }


def _public_layer(task: Task) -> dict[str, Any]:
    """Identifies the public texts of a layer of fixed vectors; empty if there is no such layer."""
    if isinstance(task, Recommendation):
        return {"items": task.catalogue.sha256}
    if isinstance(task, Retrieval):
        text = json.dumps([task.passages, task.temperature])
        return {"passages": hashlib.sha256(text.encode()).hexdigest()}
    return {}


def _pooling(network: Network) -> str:
    """The pooling as text, in the words of older proofs, so that their keys stay equal."""
    described = str(network.pooling and (network.pooling.mode, network.pooling.normalize))
    return described if network.center is None else f"{described}, centred"


def shapes_to_try(workspace: Workspace, config: TrainingConfig) -> BatchShapes:
    """The candidate shapes of a study on this machine."""
    tokens, longest = config.physical_batch_tokens, workspace.task.max_length
    if tokens is None:
        room = room_for(workspace, config)
        return candidates(longest, room.tokens, room.rows, config.padded_lengths)
    if workspace.network.device.type == "cpu":
        tokens = min(tokens, CPU_TOKENS)
    return candidates(longest, tokens, padded=config.padded_lengths)


def trained_sets(workspace: Workspace, plan: Plan, config: TrainingConfig) -> list[frozenset[str]]:
    """The sets of tensors that train in some round, in order of their first round."""
    rounds = {*range(1, min(plan.num_rounds, 2) + 1)}
    rounds |= {min(config.probe_rounds + k, plan.num_rounds) for k in (1, 2)}
    sets = [workspace.trained_in_round(config, number) for number in sorted(rounds)]
    return list(dict.fromkeys(sets))


def _device(network: Network) -> str:
    """The device and its driver: another one runs other kernels, for which a proof does not
    hold."""
    if network.device.type == "cuda":
        name = torch.cuda.get_device_name(network.device)
        capability = torch.cuda.get_device_capability(network.device)
        return (
            f"{name} {capability} CUDA {torch.version.cuda} cuDNN {torch.backends.cudnn.version()}"
        )
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_processor()}"


def _processor() -> str:
    """A hash of the processors' kind, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    described = sorted({" ".join(line.split()) for line in lines if _PROCESSOR.match(line)})
    return hashlib.sha256("\n".join(described).encode()).hexdigest()
