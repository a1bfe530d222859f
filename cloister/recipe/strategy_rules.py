"""Checks a recipe against its strategy, by the traits that the strategy declares."""

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
        UsageError: The recipe was received from a coordinator, so its strategy was not parsed.
    """
    strategy = own_strategy(recipe.strategy)
    traits = make_strategy(strategy, ()).traits
    rules = [
        *_site_rules(recipe, strategy, traits),
        *_noise_rules(recipe, strategy, traits),
        *_adapter_rules(recipe, strategy, traits),
        *_residual_rules(recipe, strategy, traits),
        *_delivery_rules(recipe, strategy, traits),
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
            f"strategy.name: {strategy.name} needs each update, but with shared noise only their "
            'sum is visible; set "fedavg", or privacy.noise = "site"',
        ),
        (
            is_shared and bool(strategy.weights),
            "strategy.weights: a secure sum gives every site the same weight; leave it out, or set "
            'privacy.noise = "site"',
        ),
        (
            is_central and (not traits.is_linear or bool(strategy.weights)),
            f"strategy: noise at the coordinator is added to a plain sum, but "
            f"{strategy.name} needs more, or weighs sites, so one site's influence would not be "
            'bounded; set strategy.name = "fedavg" without weights',
        ),
    ]


def _delivery_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on averages of adapters, and on what needs to know the noise of a round's mean."""
    name, privacy = strategy.name, recipe.privacy
    averages = isinstance(strategy, StrategyConfig) and strategy.averaging is not None
    return [
        (
            averages and traits.factors,
            f"strategy.averaging: {name} writes products in another basis each round, so their "
            'factors have no common mean; leave it out, or set strategy.name = "fedavg"',
        ),
        (
            averages and (recipe.lora.train == "b-kept" or recipe.training.personal),
            "strategy.averaging: each site's own part belongs to the last adapter, not to an "
            'average; leave it out, or set lora.train = "b" without training.personal',
        ),
        (
            traits.knows_noise and recipe.training.mode != "gradient-rounds",
            f"strategy.name: {name} needs to know the noise of each round's mean, which after "
            'several local steps is not known; set training.mode = "gradient-rounds"',
        ),
        (
            traits.knows_noise and privacy.enabled and privacy.site_epsilon is not None,
            f"strategy.name: {name} knows the noise of the sites alone, and privacy.site_epsilon "
            "adds more at the coordinator; leave one of them out",
        ),
    ]


def _adapter_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Rules on the factors and ranks that the strategy aggregates."""
    name, lora, training = strategy.name, recipe.lora, recipe.training
    allowed = " or ".join(f'"{train}"' for train in traits.trains)
    return [
        (
            traits.factors and not lora.is_lora,
            f"strategy.name: {name} needs LoRA's two factors, but lora.method = "
            f'"{lora.method}" has none: its vectors are averaged exactly; set '
            'strategy.name = "fedavg"',
        ),
        (
            traits.factors and bool(lora.freeze),
            f"lora.freeze: {name} needs both factors of each product, but one might be frozen; "
            'leave it out, or set strategy.name = "fedavg"',
        ),
        (
            lora.is_lora and bool(traits.trains) and lora.train not in traits.trains,
            f'lora.train: "{lora.train}" given; {name} needs {allowed}, because it changes both '
            "factors of a product; otherwise plain averaging is exact",
        ),
        (
            lora.train == "b-moving" and "b-moving" not in traits.trains,
            f'lora.train: "b-moving" needs a strategy that changes A between rounds, but {name} '
            'does not; set lora.train = "b" or strategy.name = "fedsvd"',
        ),
        (
            bool(lora.ranks) and not traits.mixes_ranks,
            f"lora.ranks: {name} averages factors, which must have the same rank; leave it out, or "
            "set strategy.name = 'flexlora' or 'flora'",
        ),
        (
            name == "flora" and training.local_steps == 1,
            "training.local_steps: flora starts each round with B = 0, where A has no gradient, so "
            "in a single step A would get only noise; set 2 or more",
        ),
        (
            bool(recipe.federation.proximal_start) and traits.factors,
            f"federation.proximal_start: {name} writes each product with new factors after a "
            "round, which cannot be pulled towards the first ones; leave it out, or set "
            'strategy.name = "fedavg"',
        ),
        (
            bool(recipe.federation.public_replay) and traits.factors,
            f"federation.public_replay: {name} writes each product with new factors after a round, "
            "of which public steps would change one alone; leave it out, or set "
            'strategy.name = "fedavg"',
        ),
        (
            bool(traits.trains) and lora.use_dora,
            f"lora.use_dora: {name} needs products of two factors, which DoRA's adapters are not",
        ),
    ]


def _residual_rules(recipe: Recipe, strategy: Own, traits: Traits) -> Rules:
    """Checks that residuals fit the strategy and the adapters."""
    name, lora = strategy.name, recipe.lora
    repairs = traits.keeps_residual or traits.mixes_ranks
    return [
        (
            traits.keeps_residual and not lora.residual,
            f"lora.residual: missing; {name} keeps the error of averaging in a second pair of this "
            "rank; set it, up to the adapted modules' full rank, at which it is exact",
        ),
        (
            bool(lora.residual) and not traits.keeps_residual,
            f"lora.residual: {lora.residual} given, but {name} keeps none; leave it out, or set "
            "strategy.name = 'fedex' or 'flora'",
        ),
        (
            traits.keeps_residual and lora.head == "lora",
            f'lora.head: "lora" is a product for which {name} keeps no residual; set "linear" '
            'or "frozen"',
        ),
        (
            repairs and recipe.training.mode == "gradient-rounds",
            f"training.mode: gradient rounds average gradients exactly, so {name} has no use; "
            "set strategy.name = 'fedavg', or mode = \"local-steps\"",
        ),
    ]
