"""A task of one's own: a text with several labels, written `a|b` in the column of labels.

`python examples/custom_task.py [SECTION.KEY=VALUE …]` runs it on the quickstart's synthetic
hospitals; in a recipe it is `task.kind = "custom_task:MultiLabel"`. In a deployment it is part of
an installed package, and each site names it in its own `site.toml`: docs/extending.md.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from cloister.recipe import read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.tasks.plugins import named
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
    kind, plugin = named(MultiLabel)
    recipe = read_recipe(None, sys.argv[1:])
    recipe = replace(recipe, task=replace(recipe.task, kind=kind, plugin=plugin))
    result = simulate(recipe, RunDirectory.create(Path("runs/multi-label"), recipe))
    print(result.test)
