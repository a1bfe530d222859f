"""A task of one's own: a text with several labels (at most 62), written `a|b` in their column.

`python custom_task.py` runs it on the quickstart's synthetic hospitals, whose notes have one label
each; in a recipe it is `task.kind = "custom_task:MultiLabel"`. In a deployment it is part of an
installed package, and each site names it in its own `site.toml`: docs/extending.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import cloister as cl
from cloister.tasks.text_task import TextTask


@dataclass(frozen=True)
class MultiLabel(TextTask):
    threshold: float = 0.5  # an option of the recipe: [task.plugin.options] threshold = 0.4
    primary_metric = "exact_match"

    @staticmethod
    def labels_in(record):
        return record.label.split("|")

    def target(self, record):  # one bit a label
        return sum(1 << self.labels.index(label) for label in set(self.labels_in(record)))

    def _wanted(self, logits, batch):
        bits = torch.arange(len(self.labels), device=logits.device)
        return (batch.target.to(logits.device)[:, None] >> bits) & 1

    def record_losses(self, logits, batch):
        wanted = self._wanted(logits, batch).float()
        losses = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        return losses.sum(dim=1)

    def scores(self, logits, batch):
        found = torch.sigmoid(logits.float()) > self.threshold
        return {"exact_match": (found == self._wanted(logits, batch).bool()).all(dim=1)}


if __name__ == "__main__":
    print(cl.simulate(cl.Study(task=MultiLabel)).test)
