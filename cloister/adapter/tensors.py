"""The adapter as a value: named float32 tensors that can be added and scaled like vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Values whose squares are in memory together: 8 MB; most tensors of an adapter have fewer.
PIECE = 2**20


class Adapter(Mapping[str, Array]):
    """Trainable tensors by name, in order of names; also the difference of two adapters.

    Arrays are read-only float32. Two adapters can be added only if their names and shapes agree.

    Args:
        tensors: Arrays by name; copied, and converted to float32.

    Raises:
        ValueError: An array is not of a floating type.
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, NDArray[np.floating]]) -> None:
        frozen: dict[str, Array] = {}
        for name in sorted(tensors):
            given = tensors[name]
            array = given if _is_fixed(given) else np.array(given, copy=True, order="C")
            if not np.issubdtype(array.dtype, np.floating):
                raise ValueError(f"{name}: {array.dtype} given; a floating type is needed")
            array = array.astype(np.float32, copy=False)
            array.setflags(write=False)
            frozen[name] = array
        self._tensors: Mapping[str, Array] = MappingProxyType(frozen)

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Adapter({len(self)} tensors, {self.size} parameters, norm {self.norm():.4g})"

    def __reduce__(self) -> tuple[type[Adapter], tuple[dict[str, Array]]]:
        return Adapter, (dict(self._tensors),)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        return {name: array.shape for name, array in self.items()}

    @property
    def size(self) -> int:
        """Number of values of all tensors together."""
        return sum(array.size for array in self.values())

    def norm(self) -> float:
        """Euclidean norm over all tensors taken as one vector, computed in float64."""
        return math.sqrt(sum(map(_sum_of_squares, self.values())))

    def largest(self) -> float:
        """Largest absolute value of an element; 0 where there is none."""
        return max((float(np.abs(a).max()) for a in self.values() if a.size), default=0.0)

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return all(bool(np.isfinite(array).all()) for array in self.values())

    def scale(self, factor: float) -> Adapter:
        """Returns the adapter with every element multiplied by a factor."""
        return Adapter({name: array * np.float32(factor) for name, array in self.items()})

    def zeros(self) -> Adapter:
        """Returns an adapter of the same names and shapes with all values zero."""
        return Adapter({name: np.zeros_like(array) for name, array in self.items()})

    def select(self, names: Iterable[str]) -> Adapter:
        """Returns an adapter with the tensors of these names only."""
        return Adapter({name: self[name] for name in names})

    def replace(self, part: Adapter) -> Adapter:
        """Returns this adapter with the tensors of `part` instead of its own of the same names."""
        self._check_shapes({n: a.shape for n, a in part.items()}, self.select(part).shapes)
        return Adapter({**self, **part})

    def check_shapes(self, needed: Mapping[str, tuple[int, ...]]) -> None:
        """Checks that the names and shapes are these; copies nothing.

        Raises:
            ValueError: They are others.
        """
        self._check_shapes(self.shapes, needed)

    def __add__(self, other: Adapter) -> Adapter:
        return self._combine(other, np.add)

    def __sub__(self, other: Adapter) -> Adapter:
        return self._combine(other, np.subtract)

    def _combine(self, other: Adapter, operation: Callable[[Array, Array], Array]) -> Adapter:
        self._check_shapes(other.shapes, self.shapes)
        return Adapter({name: operation(array, other[name]) for name, array in self.items()})

    @staticmethod
    def _check_shapes(
        given: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]
    ) -> None:
        if given != needed:
            names = sorted(
                name for name in {*given, *needed} if given.get(name) != needed.get(name)
            )
            raise ValueError(
                f"adapters do not fit together; they differ in {', '.join(names[:5])}"
                f"{' and others' if len(names) > 5 else ''}"
            )


def _sum_of_squares(array: Array) -> float:
    """Sums squares in float64, piece by piece, because a float64 copy takes twice the memory."""
    flat = array.reshape(-1)
    pieces = (flat[at : at + PIECE] for at in range(0, flat.size, PIECE))
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)


def _is_fixed(array: object) -> bool:
    """Whether no other array can change these values, so that they need no copy.

    A read-only view does not count: the array below it may be written.
    """
    return (
        isinstance(array, np.ndarray)
        and array.dtype == np.float32
        and array.base is None
        and array.flags.c_contiguous
        and not array.flags.writeable
    )
