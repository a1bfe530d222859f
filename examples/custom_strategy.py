"""A strategy of one's own.

`python examples/custom_strategy.py [SECTION.KEY=VALUE …]` runs it on the quickstart's synthetic
hospitals; in a recipe it is `strategy.name = "custom_strategy:Cautious"`.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.recipe import read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.strategies.arithmetic import weighted_mean
from cloister.strategies.plugins import named
from cloister.strategies.strategy import Strategy


@dataclass(frozen=True)
class Cautious(Strategy):
    share: float = 1.0  # an option of the recipe: strategy.share = 0.5

    def aggregate(self, state, updates):
        step = weighted_mean(updates, {}).scale(self.share)
        return replace(state, adapter=state.adapter.replace(state.adapter.select(step) + step))


if __name__ == "__main__":
    recipe = replace(read_recipe(None, sys.argv[1:]), strategy=named(Cautious(share=0.5)))
    result = simulate(recipe, RunDirectory.create(Path("runs/cautious"), recipe))
    print(result.test)
