"""Stores the part of the adapter that a site keeps and never sends.

    FedSA-LoRA   shared A ← A + mean of the sites' ΔA;  site k: B_k ← B_k + ΔB_k
                 (Guo et al. 2024, arXiv:2410.01463)
    MR-MTL       shared x ← mean of the sites' x_k;  site k: x_k, pulled towards x by λ/2 ‖x_k − x‖²
                 (Liu et al. 2022, arXiv:2206.07902)

Sites with different records use the shared directions differently (FedSA-LoRA), or end near the
shared adapter (MR-MTL). The part that stays comes from the same noised steps as the part that is
sent, so the same charge covers it: if it becomes known later, it reveals no more than the ledger
states.

The memory of the site's optimizer (`cloister.training.memory`) is in the same folder and covered in
the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.adapter.formats import Shapes
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.files import write_whole
from cloister.owner_only import private_folder, tighten_all


@dataclass(frozen=True)
class PersonalAdapter:
    """A site's own factors in one study, after each of its rounds.

    Attributes:
        folder: A folder at the site; made at the first write.
        study: Digest of the recipe.
        ending: The suffix of its files' names.
    """

    folder: Path
    study: str
    ending: str = "adapter"

    @classmethod
    def beside(cls, ledger: Path, study: str) -> PersonalAdapter:
        """The site's own factors: in a folder beside its ledger."""
        return cls(ledger.with_suffix(".personal"), study)

    @classmethod
    def of_optimizer(cls, ledger: Path, study: str) -> PersonalAdapter:
        """The site's optimizer memory: in the same folder, with another suffix.

        If it is lost, the optimizer starts again from zero.
        """
        return cls(ledger.with_suffix(".personal"), study, "optimizer")

    def before(self, number: int, shapes: Shapes) -> Adapter | None:
        """The factors to start a round from: those after the last trained round before it.

        So a repeated round starts from the same factors as the first time, and so does the round
        after one that was interrupted.

        Args:
            number: The round.
            shapes: Names and shapes of the factors.

        Returns:
            None if there is no earlier round.

        Raises:
            AdapterFormatError: The file is damaged, or of another study's shapes.
        """
        tighten_all(self.folder)
        earlier = [path for path in self._files() if path.name < self._file(number).name]
        return decode(earlier[-1].read_bytes(), shapes) if earlier else None

    def save(self, number: int, factors: Adapter) -> None:
        """Stores the factors after a round, and keeps those of one earlier round."""
        private_folder(self.folder)
        write_whole(self._file(number), encode(factors), mode=0o600)
        earlier = [path for path in self._files() if path.name < self._file(number).name]
        for old in earlier[:-1]:
            old.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.study[:16]}-round-*.{self.ending}"))

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.study[:16]}-round-{number:06d}.{self.ending}"
