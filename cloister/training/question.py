"""The global adapter in a round's question: which tensors travel, and in which type.

Without `training.adapter_dtype` every question has the whole adapter in float32. With it

    after each round the coordinator rounds its own adapter to that type, and keeps the rounded one;
    a question leaves out the tensors that no round has trained yet: a site has them from the seed.

So the coordinator and every site hold equal bits, and a question needs no earlier one: a site that
missed rounds, or was started again, gets all that it lacks. A whole round 1 of a study that begins
with another adapter (a finished run's, or one that public records trained) is exact, in float32.

Rounding a sum of noised updates is post-processing, so it costs no ε.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.adapter.compact import decode_compact, encode_compact
from cloister.adapter.formats import Dtype, from_body, to_body
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.training.config import TrainingConfig
from cloister.training.workspace import Workspace


@dataclass(frozen=True)
class Question:
    """How a study's global adapter travels to its sites.

    Attributes:
        start: The tensors that are sent to sites, as the study's seed gives them.
        trained: Names of the tensors that a round trains and sites send, by round, from 1 on; of
            later rounds than the last one here nothing is new.
        dtype: Type of the values; None: the whole adapter in float32, with its tensors' names.
        from_seed: Whether round 1 begins with `start`.
    """

    start: Adapter
    trained: tuple[frozenset[str], ...]
    dtype: Dtype | None
    from_seed: bool

    def encode(self, adapter: Adapter, number: int) -> bytes:
        """Encodes the adapter with which a round begins.

        Args:
            adapter: The whole adapter: the start, or what `rounded` returned after a round.
            number: The round, from 1.
        """
        if self.dtype is None or self._is_exact(number):
            return encode(adapter)
        names = self._names(adapter, number)
        others = adapter.select(adapter.keys() - names)
        return encode_compact(adapter.select(names), self.dtype, others=others)

    def decode(self, data: bytes, number: int) -> Adapter:
        """Decodes the whole adapter with which a round begins.

        Args:
            data: What `encode` wrote; not trusted.
            number: The round, from 1.

        Raises:
            AdapterFormatError: It is not such an adapter, or its bits are not the sender's.
        """
        if self.dtype is None or self._is_exact(number):
            return decode(data, self.start.shapes)
        part = self.start.select(self._moved(number)).shapes
        return decode_compact(data, part, self.start.shapes, dtype=self.dtype, others=self.start)

    def rounded(self, adapter: Adapter, closed: int) -> Adapter:
        """Returns the adapter after a round as the next question has it, and as it is kept.

        Args:
            adapter: The adapter after the round.
            closed: The round, from 1.
        """
        if self.dtype is None:
            return adapter
        part = adapter.select(self._names(adapter, closed + 1))
        body = to_body(part, self.dtype, None)
        return adapter.replace(from_body(body, self.dtype, part.shapes))

    def _is_exact(self, number: int) -> bool:
        return number == 1 and not self.from_seed

    def _moved(self, number: int) -> frozenset[str]:
        """Names of the tensors that may differ from the start before a round."""
        if not self.from_seed:
            return frozenset(self.start)
        return frozenset().union(*self.trained[: number - 1])

    def _names(self, adapter: Adapter, number: int) -> frozenset[str]:
        """Names of the tensors in a question: all, if one that no round trained was moved."""
        moved = self._moved(number)
        others = adapter.keys() - moved
        same = all(adapter[name].tobytes() == self.start[name].tobytes() for name in others)
        return moved if same else frozenset(adapter)


def question_of(workspace: Workspace, config: TrainingConfig, *, from_seed: bool) -> Question:
    """Returns how a study's global adapter travels, which coordinator and site compute alike.

    Args:
        workspace: The study's.
        config: The `[training]` section.
        from_seed: Whether round 1 begins with the adapter that the seed gives
            (`Recipe.begins_from_seed`).
    """
    # After the probe rounds come at most two kinds of rounds, which alternate.
    rounds = range(1, config.probe_rounds + 3)
    return Question(
        workspace.whole,
        tuple(workspace.trained_in_round(config, number) - workspace.kept for number in rounds),
        config.adapter_dtype,
        from_seed,
    )
