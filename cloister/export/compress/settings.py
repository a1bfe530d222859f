"""Settings of a compression, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloister.errors import UsageError

# Temperature of soft labels: Hinton et al. 2015 (arXiv:1503.02531, section 2) divide logits by it
# so that the teacher's probabilities of the wrong classes become visible; DistilBERT's code uses 2.
TEMPERATURE = 2.0
# Between BERT's for fine-tuning (5e-5; Devlin et al. 2019, appendix A.3) and DistilBERT's for
# pre-training (5e-4).
LEARNING_RATE = 1e-4
# Most epochs: a larger number is taken for a typing error.
MOST_EPOCHS = 1000


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Settings of a compression.

    Attributes:
        drop_layers: Number of layers to drop.
        drop_heads: Number of groups of heads to drop from each layer. A group is a key and value
            head with the query heads that read it.
        sparsity: Share of each weight matrix of the layers that is set to zero; the weights
            nearest zero are taken (Han et al. 2015, arXiv:1506.02626).
        epochs: Passes of the student over the public texts; 0: nothing is distilled.
        student: Another base that learns from the trained model; None: the pruned model learns.
        temperature: Temperature of the soft labels.
        learning_rate: Peak learning rate of AdamW, after the warm-up and before it falls to 0.
        seed: Seed of the order of texts.
    """

    drop_layers: int = 0
    drop_heads: int = 0
    sparsity: float = 0.0
    epochs: int = 0
    student: str | None = None
    temperature: float = TEMPERATURE
    learning_rate: float = LEARNING_RATE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop_layers", "drop_heads", "epochs"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: {getattr(self, name)} given; 0 or more is needed")
        if not 0 <= self.sparsity < 1:
            raise UsageError(f"sparsity: {self.sparsity} given; from 0 to below 1 is needed")
        if self.epochs > MOST_EPOCHS:
            raise UsageError(f"epochs: {self.epochs} given; at most {MOST_EPOCHS} is needed")
        for name in ("temperature", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name}: {getattr(self, name)} given; above 0 is needed")
        if self.student is not None and (self.drop_layers or self.drop_heads or self.sparsity):
            raise UsageError(
                "student: another base given together with layers, heads or weights to prune; "
                "give one or the other (a finished student can be pruned in a second step)"
            )
        if self.student is not None and not self.epochs:
            raise UsageError(
                "student: another base has learnt nothing yet; give epochs of distillation"
            )
        if not (self.drop_layers or self.drop_heads or self.sparsity or self.epochs):
            raise UsageError(
                "nothing to compress is given; give layers or heads to drop, a sparsity, or epochs "
                "of distillation"
            )

    @property
    def is_pruned(self) -> bool:
        """Whether layers or heads are dropped, which are chosen by public texts."""
        return bool(self.drop_layers or self.drop_heads)
