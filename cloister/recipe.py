"""A whole study as one frozen value: TOML in, hash out.

Each section is owned by the room that uses it; this module composes them and holds the rules that
cross sections. Every problem is reported at once, with the key's path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from cloister.data.config import DataConfig
from cloister.errors import BadFileError, RecipeError, RefusedError, UsageError
from cloister.fields import as_table, parse_assignment, read_section
from cloister.models.config import DEFAULT_BASE, LoraConfig, ModelConfig
from cloister.privacy.central import SENSIBLE_SITES
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.units import Unit
from cloister.strategies.build import make_strategy
from cloister.strategies.config import StrategyConfig
from cloister.strategies.strategy import Traits
from cloister.tasks.config import TaskConfig
from cloister.training.config import TrainingConfig

# SHA-256 of model.safetensors of the quickstart's base, on the hub and in the package alike.
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The `[study]` section.

    Attributes:
        name: What the study is called in reports; letters, digits, `-` and `_`.
        seed: Root of everything that may be reproducible: adapters' start, partitions. Never of
            private sampling or noise.
    """

    name: str = "hospital-triage"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"name: {self.name!r} given; letters, digits, - and _ are allowed")
        if self.seed < 0:
            raise UsageError(f"seed: {self.seed} given; 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """The `[federation]` section.

    Attributes:
        num_rounds: Rounds of the study.
        min_sites: A round with fewer updates ends the run; absent: all must answer whose budget
            is not spent.
        round_timeout: Seconds that a round may take before it is closed with what came.
        absent_timeout: Seconds that a round waits for sites that are not connected, once
            `min_sites` others are, and before a connected site that says nothing is asked again;
            deployments only. A site's connection that broke is taken back by Flower after 60 s;
            the default is twice that.
        evaluate_every: Rounds between evaluations at the coordinator; the last is always done.
        patience: Stop after so many evaluations without a better score on the public
            `data.validation`, and keep the best adapter; absent: no early stopping.
    """

    num_rounds: int = 30
    min_sites: int | None = None
    round_timeout: float = 3600.0  # Flower's own default for one exchange
    absent_timeout: float = 120.0
    evaluate_every: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_rounds", "min_sites", "evaluate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: {value} given; at least 1 is needed")
        for name in ("round_timeout", "absent_timeout"):
            if not getattr(self, name) > 0:
                given = getattr(self, name)
                raise UsageError(f"{name}: {given} given; seconds above 0 needed")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The `[tracking]` section.

    Attributes:
        tensorboard: Write TensorBoard files into the run directory.
        aggregation_error_mib: Memory in MiB for a round's updates, kept to compute how far the
            round ends from the mean of the sites' models. Where all sites' updates take more, it
            is not computed, and a linear strategy sums them as they arrive: the coordinator's
            memory does not grow with the number of sites. 0: never. The default holds 50 updates
            of RoBERTa-base with rank 8 (1.2 MB).
    """

    tensorboard: bool = True
    aggregation_error_mib: float = 64.0

    def __post_init__(self) -> None:
        if not self.aggregation_error_mib >= 0:
            given = self.aggregation_error_mib
            raise UsageError(f"aggregation_error_mib: {given} given; 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study. Its defaults are the quickstart: four synthetic hospitals, ε = 8 at each."""

    study: StudyConfig = field(default_factory=StudyConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(sha256=DEFAULT_SHA256))
    lora: LoraConfig = field(default_factory=LoraConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def tables(self) -> dict[str, dict[str, object]]:
        """All sections as TOML and JSON know them."""
        return {f.name: as_table(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def to_toml(self) -> str:
        """The recipe as a file that reads back equal."""
        return tomli_w.dumps(self.tables())

    def digest(self) -> str:
        """SHA-256 of its canonical JSON: equal recipes have equal digests, on every machine."""
        canonical = json.dumps(self.tables(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_recipe(path: Path | None, assignments: Iterable[str] = ()) -> Recipe:
    """Reads a recipe's file and the command line's changes to it.

    Args:
        path: A TOML file; None: the defaults.
        assignments: `section.key=value` each, later ones over earlier ones.

    Raises:
        BadFileError: The file is missing or no TOML.
        RecipeError: Anything in it cannot be meant; all problems at once.
    """
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadFileError(f"{path}: the recipe cannot be read ({error})") from error
    try:
        return parse_recipe(text, assignments)
    except tomllib.TOMLDecodeError as error:
        raise BadFileError(f"{path}: no valid TOML: {error}") from error


def parse_recipe(text: str, assignments: Iterable[str] = ()) -> Recipe:
    """Reads a recipe from TOML text; see `read_recipe`.

    Raises:
        tomllib.TOMLDecodeError: The text is no TOML.
        RecipeError: Anything in it cannot be meant.
    """
    tables: dict[str, object] = tomllib.loads(text)
    problems: list[str] = []
    for assignment in assignments:
        try:
            section, key, value = parse_assignment(assignment)
        except UsageError as error:
            problems.append(str(error))
            continue
        table = tables.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = value
    recipe = _compose(tables, problems)
    if recipe is not None:
        problems += cross_field_problems(recipe)
    if problems or recipe is None:
        raise RecipeError(problems)
    return recipe


def _compose(tables: Mapping[str, object], problems: list[str]) -> Recipe | None:
    kinds = {f.name: type(getattr(Recipe(), f.name)) for f in dataclasses.fields(Recipe)}
    sections: dict[str, object] = {}
    for name, table in tables.items():
        if name not in kinds:
            problems.append(f"{name}: unknown section; known: {', '.join(kinds)}")
        elif not isinstance(table, dict):
            problems.append(f"{name}: {table!r} given; a section [{name}] is needed")
        else:
            if name == "model" and table.get("base", DEFAULT_BASE) == DEFAULT_BASE:
                table = {"sha256": DEFAULT_SHA256, **table}
            sections[name] = read_section(kinds[name], table, name, problems)
    return None if problems else Recipe(**sections)  # type: ignore[arg-type]


def cross_field_problems(recipe: Recipe) -> list[str]:
    """What contradicts itself across sections, one line each."""
    data, training, federation = recipe.data, recipe.training, recipe.federation
    records = data.public_records
    declared = records if isinstance(records, tuple) else (records,) * data.sites
    batch = training.expected_batch_size
    causal = recipe.task.kind == "causal-lm"
    head_trains = not causal and recipe.lora.head != "frozen"
    traits = make_strategy(recipe.strategy, ()).traits
    fewest = traits.fewest
    rules = [
        *_strategy_rules(recipe, traits),
        *_sharing_rules(recipe, traits),
        *_central_rules(recipe, traits),
        (
            len(declared) != data.sites,
            f"data.public_records: {len(declared)} numbers given for data.sites = {data.sites}",
        ),
        (
            batch > min(declared),
            f"training.expected_batch_size: {batch} is above the {min(declared)} records declared "
            "in data.public_records: a sample rate above 1; make the batch smaller",
        ),
        (
            bool(recipe.strategy.weights) and len(recipe.strategy.weights) != data.sites,
            f"strategy.weights: {len(recipe.strategy.weights)} given for data.sites = {data.sites}",
        ),
        (
            data.sites < fewest,
            f"strategy.name: {recipe.strategy.name} needs updates of at least {fewest} sites, "
            f"data.sites = {data.sites}",
        ),
        (
            federation.min_sites is not None and federation.min_sites < fewest,
            f"federation.min_sites: {federation.min_sites} given; {recipe.strategy.name} needs at "
            f"least {fewest} updates",
        ),
        (
            recipe.privacy.unit is Unit.PERSON and data.person is None,
            "data.person: name the column of persons, which privacy.unit = 'person' needs",
        ),
        (
            len(recipe.privacy.site_budgets) not in (0, data.sites),
            f"privacy.site_budgets: {len(recipe.privacy.site_budgets)} given for data.sites = "
            f"{data.sites}",
        ),
        (
            (federation.min_sites or 0) > data.sites,
            f"federation.min_sites: {federation.min_sites} is above data.sites = {data.sites}",
        ),
        (
            federation.patience is not None and data.validation is None,
            "federation.patience: early stopping needs a public validation set; set "
            "data.validation (private scores would be releases that nobody charged)",
        ),
        (
            training.probe_rounds > 0 and not head_trains,
            "training.probe_rounds: there is no trained head to start with",
        ),
        (
            training.probe_rounds >= federation.num_rounds and recipe.lora.train != "none",
            f"training.probe_rounds: {training.probe_rounds} leaves none of federation.num_rounds "
            f"= {federation.num_rounds} for the adapters; for a probe set lora.train = 'none'",
        ),
        (
            causal and recipe.lora.head not in (None, "frozen"),
            'lora.head: a causal LM keeps its own; leave lora.head out, or set "frozen"',
        ),
        (
            causal and recipe.lora.train == "none",
            'lora.train: "none" trains the head alone, and a causal LM\'s head is frozen; '
            'set "both" or "b"',
        ),
        (
            training.warmup_steps > training.local_steps * federation.num_rounds,
            f"training.warmup_steps: {training.warmup_steps} is more than the study's "
            f"{training.local_steps * federation.num_rounds} steps",
        ),
    ]
    return [problem for broken, problem in rules if broken]


def _sharing_rules(recipe: Recipe, traits: Traits) -> list[tuple[bool, str]]:
    """What noise that sites share does not go with: whether it is so, and what to say then."""
    privacy, training, lora = recipe.privacy, recipe.training, recipe.lora
    if privacy.noise == "site" or not privacy.enabled:
        return []
    declared = recipe.data.public_records
    try:
        sharing, why = privacy.sharing(recipe.data.sites), ""
    except RefusedError as error:
        sharing, why = None, str(error)
    fewest = recipe.federation.min_sites
    return [
        (
            sharing is None,
            f"privacy.noise: {why}; declare more sites, or lower privacy.missing_sites or "
            "privacy.colluding_sites",
        ),
        (
            training.mode != "gradient-rounds",
            'training.mode: shared noise is added once a round, to one gradient; set "'
            'gradient-rounds", or privacy.noise = "site"',
        ),
        (
            not traits.is_linear,
            f"strategy.name: {recipe.strategy.name} looks at each update, and with shared noise "
            'there is their sum alone; set "fedavg", or privacy.noise = "site"',
        ),
        (
            bool(recipe.strategy.weights),
            "strategy.weights: a secure sum counts every site alike; leave it out, or set "
            'privacy.noise = "site"',
        ),
        (
            privacy.noise_multiplier == 0,
            "privacy.noise_multiplier: 0 is nothing to share; give a noise, or set privacy.noise = "
            '"site"',
        ),
        (
            isinstance(declared, tuple) and len(set(declared)) > 1,
            "data.public_records: with shared noise all sites run one plan, so they declare one "
            "number; give the smallest",
        ),
        (
            training.update_dtype != "float32",
            "training.update_dtype: a secure sum is of integers; leave it out, and set "
            "privacy.secure_bits",
        ),
        (
            lora.train == "b-kept" or bool(lora.ranks),
            "lora: with shared noise every site sends the same tensors, and keeps none; leave "
            'lora.ranks out, and set lora.train = "both", "b" or "alternate"',
        ),
        (
            sharing is not None and fewest not in (None, sharing.threshold),
            f"federation.min_sites: {fewest} given; with shared noise it follows from "
            f"privacy.missing_sites: {sharing.threshold if sharing else 0}; leave it out",
        ),
    ]


def _central_rules(recipe: Recipe, traits: Traits) -> list[tuple[bool, str]]:
    """What noise at the coordinator does not go with: whether it is so, and what to say then."""
    privacy = recipe.privacy
    if privacy.site_epsilon is None or not privacy.enabled:
        return []
    sites = recipe.data.sites
    return [
        (
            sites < SENSIBLE_SITES and not privacy.site_noise_forced,
            f"privacy.site_epsilon: among {sites} sites the noise that hides a whole one drowns "
            f"what all learn (tens of times as long as any update; {SENSIBLE_SITES} sites are the "
            "least that make sense); leave it out, each site's records are protected without it, "
            "or set privacy.site_noise_forced = true",
        ),
        (
            privacy.noise == "shared",
            "privacy.site_epsilon: under secure aggregation the coordinator sees no update whose "
            'norm it could bound; leave it out, or set privacy.noise = "site"',
        ),
        (
            not traits.is_linear or bool(recipe.strategy.weights),
            f"strategy: noise at the coordinator is added to a plain sum, and "
            f"{recipe.strategy.name} needs more, or weighs sites: the bound on one site would not "
            'hold; set strategy.name = "fedavg" without weights',
        ),
        (
            recipe.lora.train == "b-kept" or bool(recipe.lora.ranks),
            "lora: noise at the coordinator needs updates of one shape from all; leave lora.ranks "
            'and lora.train = "b-kept" out',
        ),
    ]


def _strategy_rules(recipe: Recipe, traits: Traits) -> list[tuple[bool, str]]:
    """What a strategy does not go with: whether it is so, and what to say then."""
    name, lora, training = recipe.strategy.name, recipe.lora, recipe.training
    allowed = " or ".join(f'"{train}"' for train in traits.trains)
    return [
        (
            bool(traits.trains) and lora.train not in traits.trains,
            f'lora.train: "{lora.train}" given; {name} needs {allowed}: it moves both factors of '
            "a product, and elsewhere averaging is exact as it is",
        ),
        (
            lora.train == "b-moving" and "b-moving" not in traits.trains,
            f'lora.train: "b-moving" sends A down to be moved, which {name} does not do; set "b", '
            "or strategy.name = 'fedsvd'",
        ),
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
            bool(lora.ranks) and not traits.mixes_ranks,
            f"lora.ranks: {name} averages factors, which must be of one rank; leave it out, or "
            "set strategy.name = 'flexlora' or 'flora'",
        ),
        (
            len(lora.ranks) not in (0, recipe.data.sites),
            f"lora.ranks: {len(lora.ranks)} given for data.sites = {recipe.data.sites}",
        ),
        (
            bool(lora.ranks) and lora.head == "lora",
            'lora.head: "lora" is of the same rank everywhere; with lora.ranks set "linear" or '
            '"frozen"',
        ),
        (
            traits.keeps_residual and lora.head == "lora",
            f'lora.head: "lora" is a product beside which {name} keeps no residual; set "linear" '
            'or "frozen"',
        ),
        (
            (traits.keeps_residual or traits.mixes_ranks) and training.mode == "gradient-rounds",
            f"training.mode: gradient rounds average gradients, so {name} has nothing to repair; "
            "set strategy.name = 'fedavg', or mode = \"local-steps\"",
        ),
        (
            lora.train == "b-kept" and recipe.federation.patience is not None,
            "federation.patience: sites keep the B of their last round, not of the best one; with "
            'lora.train = "b-kept" leave it out',
        ),
        (
            training.personal and (lora.train in ("b-kept", "b-moving") or bool(lora.residual)),
            "training.personal: a site's own adapter needs one that is shared whole and stays in "
            'its basis; set lora.train = "both", "b" or "alternate", and no lora.residual',
        ),
        (
            training.personal and bool(lora.ranks),
            "training.personal: own adapters are of one rank; leave lora.ranks out",
        ),
        (
            lora.train == "b-kept" and lora.use_dora,
            'lora.use_dora: lora.train = "b-kept" shares A alone, and DoRA has a third part',
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


def warnings(recipe: Recipe) -> list[str]:
    """What is allowed but seldom meant, one line each."""
    data, records = recipe.data, recipe.data.public_records
    fewest = min(records) if isinstance(records, tuple) else records
    notes = []
    if recipe.privacy.unit is Unit.PERSON and data.partition not in ("person", "column"):
        notes.append(
            f"data.partition: {data.partition} deals one person's records to several sites, each "
            "of which protects them for itself: their ε adds up; set data.partition = 'person'"
        )
    if recipe.privacy.enabled and recipe.privacy.delta > 1 / (10 * fewest):
        # Dwork & Roth 2014, section 2.3: a delta near 1/n allows publishing a few records whole.
        notes.append(
            f"privacy.delta: {recipe.privacy.delta:g} is above 1/(10 · {fewest}); "
            f"{1 / (10 * fewest):.0e} or less is advised for the smallest site"
        )
    return notes
