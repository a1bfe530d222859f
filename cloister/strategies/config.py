"""The `[strategy]` section of a recipe, built in, from a plug-in, or carried unread."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Literal

from cloister.bounds import LARGE, MOST_NAME, MOST_SITES, Between, Items, Text
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds
from cloister.strategies.averaging import Kind
from cloister.strategies.registry import BUILT_IN

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(name for name, method in BUILT_IN.items() if method.fields is not None)]

# With a larger ratio of weights the lighter site is lost in float32's 24 bits.
MOST_WEIGHT = 1e6

# Fields that every built-in method has: what is delivered of the adapters of all rounds.
COMMON = ("averaging", "averaging_decay", "averaging_share")

# Which of the other fields beside `name` each method has.
FIELDS: dict[Name, frozenset[str]] = {
    name: method.fields for name, method in BUILT_IN.items() if method.fields is not None
}

# Bytes of options that a site carries unread: 20 for each of 10,000 sites, and a little more.
MOST_OPTIONS = 2**18
# Smaller steps are lost in float32 beside adapters of size 1.
SMALLEST_STEP = 1e-12
Step = Annotated[float, Between(SMALLEST_STEP, LARGE)]
Momentum = Annotated[float, Between(0.0, 1.0, below=True)]
Weight = Annotated[float, Between(1 / MOST_WEIGHT, MOST_WEIGHT)]


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How updates become the next global adapter: a built-in strategy and its options.

    Attributes:
        name: The strategy's name.
        weights: One declared, public weight for each site, in the order of the sites' names; never
            the private number of records. Empty: all sites have the same weight.
        learning_rate: Learning rate of the server's optimizer. Absent: 1 for `fedavgm`, 0.1 for
            `fedadagrad`, `fedadam` and `fedyogi` (Reddi et al. 2021 find 10^-1.5 to 10^0 best over
            their tasks).
        momentum: Momentum of the server's optimizer. Absent: 0.9.
        second_momentum: β₂ of `fedadam` and `fedyogi`. Absent: 0.99, as in the paper.
        adaptivity: τ of `fedadagrad`, `fedadam` and `fedyogi`. Absent: 1e-3, as in the paper.
        byzantine: Number of sites that may send arbitrary updates, for `trimmed-mean`, `krum` and
            `multi-krum`. Absent: 1.
        selected: Number of updates that `multi-krum` averages. Absent: 2.
        multiple: `norm-gate` refuses an update whose norm is above this multiple of the median
            norm. Absent: 3, a guess that leaves room for sites whose data differ.
        averaging: Score and deliver an average of the adapters of several rounds; training goes on
            from the last one. `tail`: the mean of the last rounds (Polyak & Juditsky 1992).
            `ema`: an exponential moving average (De et al. 2022, arXiv:2204.13650). Costs no ε.
            Absent: the last adapter is delivered.
        averaging_decay: With `ema`: how much of the average each round keeps. Absent: 0.9.
        averaging_share: With `tail`: the last part of the study's rounds that is averaged. Absent:
            0.5.
    """

    name: Name = field(default="fedavg", metadata=called("type kind strategy"))
    weights: Annotated[tuple[Weight, ...], Items(MOST_SITES)] = ()
    learning_rate: Step | None = field(
        default=None, metadata=called("lr server_lr server_learning_rate eta")
    )
    momentum: Momentum | None = None
    second_momentum: Momentum | None = None
    adaptivity: Step | None = None
    byzantine: Annotated[int, Between(1, MOST_SITES)] | None = None
    selected: Annotated[int, Between(1, MOST_SITES)] | None = None
    multiple: Annotated[float, Between(1.0, LARGE)] | None = None
    averaging: Kind | None = field(default=None, metadata={**LATER, **called("average ema swa")})
    averaging_decay: Annotated[float, Between(0.0, 1.0, below=True)] | None = field(
        default=None, metadata={**LATER, **called("ema_decay decay")}
    )
    averaging_share: Annotated[float, Between(SMALLEST_STEP, 1.0)] | None = field(
        default=None, metadata=LATER
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        own = FIELDS[self.name]
        given = [f.name for f in fields(self) if f.name != "name" and getattr(self, f.name)]
        given += [f.name for f in fields(self) if f.default is None and getattr(self, f.name) == 0]
        foreign = [name for name in given if name not in own and name not in COMMON]
        if foreign:
            known = ", ".join(sorted(own)) or "none"
            raise UsageError(f"{foreign[0]}: not a field of {self.name}, whose fields are: {known}")
        for option, kind in (("averaging_decay", "ema"), ("averaging_share", "tail")):
            if getattr(self, option) is not None and self.averaging != kind:
                raise UsageError(
                    f"{option}: given, but averaging is {self.averaging or 'absent'}; it is an "
                    f'option of averaging = "{kind}": set that, or leave it out'
                )


@dataclass(frozen=True, kw_only=True)
class PluginStrategy:
    """A strategy of another package, with its options; plain data, nothing is imported.

    `cloister.strategies.plugins` makes one from a recipe's table or a Python object, and a strategy
    from it. All of it is covered by the study's digest.

    Attributes:
        name: The name of its entry point, or `module:Class`.
        distribution: The installed package that contains it; empty: none.
        version: That package's version; without a package, `sha256:` and the hash of the module's
            file.
        options: Canonical JSON of every option and its value.
        weights: One declared constant for each site, as in `StrategyConfig`; only a linear strategy
            has them.
    """

    name: Annotated[str, Text(MOST_NAME, least=1)]
    distribution: Annotated[str, Text(MOST_NAME)] = ""
    version: Annotated[str, Text(MOST_NAME)] = ""
    options: Annotated[str, Text(MOST_OPTIONS, lines=True)] = "{}"
    weights: Annotated[tuple[Weight, ...], Items(MOST_SITES)] = ()

    def __post_init__(self) -> None:
        check_bounds(self)

    def table(self) -> dict[str, object]:
        """The table as a recipe states it, with every value."""
        stated = {"name": self.name, "distribution": self.distribution, "version": self.version}
        weights = {"weights": list(self.weights)} if self.weights else {}
        return {**stated, **weights, **json.loads(self.options)}


@dataclass(frozen=True, kw_only=True)
class CarriedStrategy:
    """A strategy as a site received it: part of the study's digest, but not interpreted.

    Which strategy the coordinator runs changes nothing that a site computes, so a site joins
    studies whose strategy its version does not know.

    Attributes:
        name: As sent.
        options: As sent: canonical JSON of an object.
    """

    name: Annotated[str, Text(MOST_NAME)]
    options: Annotated[str, Text(MOST_OPTIONS, lines=True)]

    def __post_init__(self) -> None:
        check_bounds(self)


Strategies = StrategyConfig | PluginStrategy | CarriedStrategy


def own_strategy(strategy: Strategies) -> StrategyConfig | PluginStrategy:
    """Refuses a strategy that is only carried.

    Raises:
        UsageError: The recipe was received from a coordinator, whose strategy is not read.
    """
    if isinstance(strategy, CarriedStrategy):
        raise UsageError(
            f"strategy.name: {strategy.name!r} came from a coordinator and is not read at a site; "
            "start from the recipe's own file"
        )
    return strategy
