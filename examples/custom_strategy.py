"""A strategy of one's own, on the quickstart's synthetic hospitals: `python custom_strategy.py`.

In a recipe it is `strategy.name = "custom_strategy:Cautious"`.
"""

from dataclasses import dataclass, replace

import cloister as cl
from cloister.strategies.arithmetic import weighted_mean


@dataclass(frozen=True)
class Cautious(cl.Strategy):
    share: float = 1.0  # an option of the recipe: strategy.share = 0.5

    def aggregate(self, state, updates):
        step = weighted_mean(updates, {}).scale(self.share)
        return replace(state, adapter=state.adapter.replace(state.adapter.select(step) + step))


if __name__ == "__main__":
    print(cl.simulate(cl.Study(strategy=Cautious(share=0.5))).test)
