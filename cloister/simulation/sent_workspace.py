"""Sends an opened workspace to the processes of a Ray, with its base once a node.

The base's weights go into Ray's object store as read-only arrays, which every process of a node
maps into its memory: no process reads the base's files, copies it, or checks it again, and a node
needs no copy of the base on its disk. What a round writes (adapters, head, residuals) is copied for
each process. Nothing that was cached of a record is sent (`models.kept_states`).
"""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloister.errors import CloisterError
from cloister.training.workspace import Workspace

# A tensor of fewer bytes is copied: mapping it would save less than it costs to keep track of.
MAPPED = 2**16


@dataclass(frozen=True)
class SentTensor:
    """A tensor on its way.

    Attributes:
        content: Its bytes, [n].
        dtype: Its type.
        shape: Its shape.
        is_parameter: Whether it is a parameter of a module.
        trains: Whether it needs a gradient.
        is_frozen: Whether nothing ever writes to it, so that processes may share its memory.
    """

    content: NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]
    is_parameter: bool
    trains: bool
    is_frozen: bool

    def made(self, device: torch.device) -> Tensor:
        """Returns the tensor on a device; on the CPU a frozen one has the memory of `content`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of arrays that must not be written to
            flat = torch.from_numpy(self.content if self.is_frozen else self.content.copy())
        found = flat.view(self.dtype).reshape(self.shape).to(device)
        if self.is_parameter:
            return nn.Parameter(found, requires_grad=self.trains)
        return found.requires_grad_(self.trains) if self.trains else found


@dataclass(frozen=True)
class SentWorkspace:
    """A workspace on its way.

    Attributes:
        objects: A pickle of everything but the tensors.
        tensors: The tensors.
    """

    objects: bytes
    tensors: tuple[SentTensor, ...]

    @classmethod
    def of(cls, workspace: Workspace) -> SentWorkspace:
        """Packs a workspace.

        Raises:
            CloisterError: It holds something that no other process can get.
        """
        changed = {*workspace.start, *workspace.carried}
        written = {
            id(p)
            for name, p in workspace.network.named_parameters()
            if name in changed or p.requires_grad or "lora_" in name
        }
        from ray import cloudpickle

        pickler: Any = cloudpickle.CloudPickler  # Ray has no types

        class Packer(pickler):  # type: ignore[misc]
            """Leaves the tensors out."""

            def persistent_id(self, value: object) -> int | None:
                """Returns a tensor's number; None for everything else."""
                if type(value) not in (Tensor, nn.Parameter):
                    return None
                assert isinstance(value, Tensor)
                if id(value) not in numbers:
                    numbers[id(value)] = len(tensors)
                    tensors.append(_sent(value, is_frozen=id(value) not in written))
                return numbers[id(value)]

        tensors: list[SentTensor] = []
        numbers: dict[int, int] = {}
        file = io.BytesIO()
        try:
            packer: Any = Packer
            packer(file, protocol=5).dump(workspace)
        except Exception as error:
            raise CloisterError(
                f"--engine ray: this base or task cannot be sent to Ray's processes ({error}); use "
                "--engine local"
            ) from error
        return cls(file.getvalue(), tuple(tensors))

    def opened(self, device: str) -> Workspace:
        """Unpacks the workspace; its tensors are on this device."""
        made: dict[int, Tensor] = {}
        tensors, place = self.tensors, torch.device(device)

        class Unpacker(pickle.Unpickler):
            """Puts the tensors in; one that has two names stays one."""

            def persistent_load(self, number: Any) -> Tensor:
                """Returns the tensor with this number."""
                if number not in made:
                    made[number] = tensors[number].made(place)
                return made[number]

        found = Unpacker(io.BytesIO(self.objects)).load()
        assert isinstance(found, Workspace)
        return found


def _sent(tensor: Tensor, *, is_frozen: bool) -> SentTensor:
    plain = tensor.detach().cpu().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else _NOTHING
    return SentTensor(
        content,
        plain.dtype,
        tuple(plain.shape),
        isinstance(tensor, nn.Parameter),
        tensor.requires_grad,
        is_frozen and isinstance(tensor, nn.Parameter) and content.nbytes >= MAPPED,
    )


_NOTHING = np.zeros(0, dtype=np.uint8)
