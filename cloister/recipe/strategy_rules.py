"""Rules between a recipe and its strategy, by the traits that the strategy declares."""

from __future__ import annotations

from cloister.recipe.rules import Rules
from cloister.recipe.schema import Recipe
from cloister.strategies.build import make_strategy
from cloister.strategies.config import PluginStrategy, StrategyConfig, own_strategy
from cloister.strategies.strategy import Traits

Own = StrategyConfig | PluginStrategy


def strategy_problems(recipe: Recipe) -> list[str]:
    """Returns a line for each field that contradicts the strategy.

    Raises:
        UsageError: The recipe was received from a coordinator, and its strategy is not read.
    """
    strategy = own_strategy(recipe.strategy)
    traits = make_strategy(strategy, ()).traits
    rules = [
        *_site_rules(recipe, strategy, traits),
        *_noise_rules(recipe, strategy, traits),
        *_adapter_rules(recipe, strategy, traits),
        *_residual_rules(recipe, strategy, traits),
    ]
    return [problem for broken, problem in rules if broken]


def _site_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on the number of sites."""
    sites, fewest, min_sites = recipe.data.sites, traits.fewest, recipe.federation.min_sites
    return [
        (
            bool(strategy.weights) and len(strategy.weights) != sites,
            f"strategy.weights: {len(strategy.weights)} given for data.sites = {sites}",
        ),
        (
            sites < fewest,
            f"strategy.name: {strategy.name} needs updates of at least {fewest} sites, "
            f"data.sites = {sites}",
        ),
        (
            min_sites is not None and min_sites < fewest,
            f"federation.min_sites: {min_sites} given; {strategy.name} needs at least {fewest} "
            "updates",
        ),
    ]


def _noise_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on secure aggregation and noise at the coordinator."""
    privacy = recipe.privacy
    is_shared = privacy.enabled and privacy.noise == "shared"
    is_central = privacy.enabled and privacy.site_epsilon is not None
    return [
        (
            is_shared and not traits.is_linear,
            f"strategy.name: {strategy.name} looks at each update, and with shared noise "
            'there is their sum alone; set "fedavg", or privacy.noise = "site"',
        ),
        (
            is_shared and bool(strategy.weights),
            "strategy.weights: a secure sum counts every site alike; leave it out, or set "
            'privacy.noise = "site"',
        ),
        (
            is_central and (not traits.is_linear or bool(strategy.weights)),
            f"strategy: noise at the coordinator is added to a plain sum, and "
            f"{strategy.name} needs more, or weighs sites: the bound on one site would not "
            'hold; set strategy.name = "fedavg" without weights',
        ),
    ]


def _adapter_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on the factors and ranks that the strategy aggregates."""
    name, lora, training = strategy.name, recipe.lora, recipe.training
    allowed = " or ".join(f'"{train}"' for train in traits.trains)
    return [
        (
            traits.factors and not lora.is_lora,
            f"strategy.name: {name} works on LoRA's two factors, and lora.method = "
            f'"{lora.method}" has none: its vectors average exactly as they are; set '
            'strategy.name = "fedavg"',
        ),
        (
            traits.factors and bool(lora.freeze),
            f"lora.freeze: {name} works on both factors of each product, and one might stay; "
            'leave it out, or set strategy.name = "fedavg"',
        ),
        (
            lora.is_lora and bool(traits.trains) and lora.train not in traits.trains,
            f'lora.train: "{lora.train}" given; {name} needs {allowed}: it moves both factors of '
            "a product, and elsewhere averaging is exact as it is",
        ),
        (
            lora.train == "b-moving" and "b-moving" not in traits.trains,
            f'lora.train: "b-moving" needs a strategy that changes A between rounds, and {name} '
            'does not; set lora.train = "b" or strategy.name = "fedsvd"',
        ),
        (
            bool(lora.ranks) and not traits.mixes_ranks,
            f"lora.ranks: {name} averages factors, which must be of one rank; leave it out, or "
            "set strategy.name = 'flexlora' or 'flora'",
        ),
        (
            name == "flora" and training.local_steps == 1,
            "training.local_steps: flora starts each round with B = 0, where A has no gradient: "
            "in a single step it would only take noise; set 2 or more",
        ),
        (
            bool(traits.trains) and lora.use_dora,
            f"lora.use_dora: DoRA's adapters are no products, which {name} works on",
        ),
    ]


def _residual_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on residuals."""
    name, lora = strategy.name, recipe.lora
    repairs = traits.keeps_residual or traits.mixes_ranks
    return [
        (
            traits.keeps_residual and not lora.residual,
            f"lora.residual: {name} keeps what averaging leaves over in a second pair of this "
            "rank; set it, up to the adapted modules' full rank, at which it is exact",
        ),
        (
            bool(lora.residual) and not traits.keeps_residual,
            f"lora.residual: {lora.residual} given, and {name} keeps none; leave it out, or set "
            "strategy.name = 'fedex' or 'flora'",
        ),
        (
            traits.keeps_residual and lora.head == "lora",
            f'lora.head: "lora" is a product beside which {name} keeps no residual; set "linear" '
            'or "frozen"',
        ),
        (
            repairs and recipe.training.mode == "gradient-rounds",
            f"training.mode: gradient rounds average gradients, so {name} has nothing to repair; "
            "set strategy.name = 'fedavg', or mode = \"local-steps\"",
        ),
    ]
