"""Hands cached states of frozen layers from private training to the same study without privacy.

A study's plain twin reads the same records. Private passes cache states apart for each fixed shape
(`cloister.models.prefix`); plain training may take those, which differ by rounding from what it
would compute. Scores never do: whether a public text is also a private record would show in their
last bits. Where the private run's sites were trained by worker processes, which end with it, these
first give the states back, in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import Entry
from cloister.models.network import Network
from cloister.models.prefix import FrozenPrefix

# Records in a piece, which is in memory three times while it is sent: 40 MB each for 25 tokens of
# 384 hidden units.
PIECE = 1000


@dataclass(frozen=True)
class StatesPiece:
    """Some of the states that a process cached.

    Attributes:
        of_head: Whether they are what the head reads; else what the first adapted layer reads.
        made_with: Identifies the parameters that they were computed with.
        entries: The states by record and shape.
    """

    of_head: bool
    made_with: bytes
    entries: tuple[Entry, ...]


@contextmanager
def taking_any(network: Network) -> Iterator[None]:
    """Enters a context in which batches without a fixed shape take cached states of any shape.

    Args:
        network: Below float32 its batches take none, since states depend visibly on their batch.
    """
    caches = _caches(network)
    try:
        for cache in caches:
            cache.takes_any = network.is_float32
        yield
    finally:
        for cache in caches:
            cache.takes_any = False


def pieces_of(network: Network) -> Iterator[StatesPiece]:
    """Yields everything that this process cached for a network; nothing below float32."""
    for cache in _caches(network) if network.is_float32 else ():
        entries = cache.kept.entries()
        while some := tuple(islice(entries, PIECE)):
            yield StatesPiece(isinstance(cache, HeadInputs), cache.kept.made_with, some)


def take_piece(network: Network, piece: StatesPiece) -> None:
    """Caches what another process cached for the same network, as far as there is room."""
    cache = network.head_inputs if piece.of_head else network.prefix
    if cache is not None:
        cache.take(piece.made_with, piece.entries)


def _caches(network: Network) -> list[FrozenPrefix | HeadInputs]:
    return [cache for cache in (network.prefix, network.head_inputs) if cache is not None]
