"""Checks a recipe's sections against each other, apart from rules on the strategy.

A site, which does not read the strategy, checks these rules too; those on the strategy, for the
coordinator, are in `cloister.recipe.strategy_rules`.
"""

from __future__ import annotations

from cloister.bounds import MOST_STEPS
from cloister.data.records import ONE_TEXT
from cloister.errors import RefusedError
from cloister.privacy.central import SENSIBLE_SITES
from cloister.privacy.units import Unit
from cloister.recipe.evaluation_rules import evaluation_rules
from cloister.recipe.schema import Recipe
from cloister.recipe.vote_rules import vote_rules

Rules = list[tuple[bool, str]]  # whether each rule is broken, and its message


def study_problems(recipe: Recipe) -> list[str]:
    """Returns a line for each contradiction between sections."""
    rules = [
        *_size_rules(recipe),
        *_training_rules(recipe),
        *_public_rules(recipe),
        *_adapter_rules(recipe),
        *_sharing_rules(recipe),
        *_band_rules(recipe),
        *_central_rules(recipe),
        *evaluation_rules(recipe),
        *vote_rules(recipe),
    ]
    return [problem for broken, problem in rules if broken]


def warnings(recipe: Recipe) -> list[str]:
    """Returns a line for each setting that is allowed but probably a mistake."""
    data, records = recipe.data, recipe.data.public_records
    fewest = min(records) if isinstance(records, tuple) else records
    notes = list(recipe.notes)
    if recipe.privacy.unit is Unit.PERSON and data.partition not in ("person", "column"):
        notes.append(
            f"data.partition: {data.partition} deals one person's records to several sites, which "
            "protect them separately, so their ε add up; set data.partition = 'person'"
        )
    if recipe.privacy.enabled and recipe.privacy.delta > 1 / (10 * fewest):
        # Dwork & Roth 2014, section 2.3: a delta near 1/n allows to publish a few records
        # completely.
        notes.append(
            f"privacy.delta: {recipe.privacy.delta:g} is above 1/(10 · {fewest}); "
            f"{1 / (10 * fewest):.0e} or less is advised for the smallest site"
        )
    return notes


def _size_rules(recipe: Recipe) -> Rules:
    """Rules on numbers of sites, records and steps."""
    data, training, federation = recipe.data, recipe.training, recipe.federation
    records = data.public_records
    counted = len(records) if isinstance(records, tuple) else data.sites
    fewest = min(records) if isinstance(records, tuple) else records
    batch, steps = training.expected_batch_size, training.local_steps * federation.num_rounds
    budgets = recipe.privacy.site_budgets
    return [
        (
            counted != data.sites,
            f"data.public_records: {counted} numbers given for data.sites = {data.sites}",
        ),
        (
            batch > fewest,
            f"training.expected_batch_size: {batch} is above the {fewest} records declared "
            "in data.public_records, so the sample rate would be above 1; set "
            f"training.expected_batch_size to at most {fewest} (a quarter of it is a good start)",
        ),
        (
            steps > MOST_STEPS,
            f"training.local_steps, federation.num_rounds: {steps:,} steps together; at most "
            f"{MOST_STEPS:,} are allowed, because all accountants must check them",
        ),
        (
            len(budgets) not in (0, data.sites),
            f"privacy.site_budgets: {len(budgets)} given for data.sites = {data.sites}",
        ),
        (
            (federation.min_sites or 0) > data.sites,
            f"federation.min_sites: {federation.min_sites} is above data.sites = {data.sites}",
        ),
        (
            len(recipe.lora.ranks) not in (0, data.sites),
            f"lora.ranks: {len(recipe.lora.ranks)} given for data.sites = {data.sites}",
        ),
        (
            recipe.privacy.unit is Unit.PERSON and data.person is None,
            "data.person: name the column of persons, which privacy.unit = 'person' needs",
        ),
    ]


def _training_rules(recipe: Recipe) -> Rules:
    """Rules on schedules and early stopping."""
    training, federation, lora = recipe.training, recipe.federation, recipe.lora
    steps = training.local_steps * federation.num_rounds
    head_trains = recipe.task.records != "messages" and lora.head != "frozen"
    return [
        (
            federation.patience is not None
            and recipe.data.validation is None
            and not recipe.selects_privately,
            "federation.patience: early stopping needs a public validation set or private "
            "evaluations; set data.validation, or privacy.evaluation_rounds (other scores on "
            "private records would be releases that no ledger charges)",
        ),
        (
            federation.patience is not None and lora.train == "b-kept",
            "federation.patience: sites keep the B of their last round, not that of the best one; "
            'with lora.train = "b-kept" leave it out',
        ),
        (
            training.probe_rounds > 0 and not head_trains,
            "training.probe_rounds: not possible, because no head is trained; leave it out",
        ),
        (
            training.probe_rounds == 0 and training.probe_learning_rate is not None,
            "training.probe_learning_rate: given, but training.probe_rounds is 0; set the number "
            "of first rounds in which only the head trains, or leave it out",
        ),
        (
            training.probe_rounds >= federation.num_rounds and lora.train != "none",
            f"training.probe_rounds: {training.probe_rounds} leaves none of federation.num_rounds "
            f"= {federation.num_rounds} for the adapters; for a probe set lora.train = 'none'",
        ),
        (
            training.adapter_dtype is not None and (lora.residual > 0 or lora.train == "b-moving"),
            'training.adapter_dtype: not possible with lora.residual or lora.train = "b-moving", '
            "with which the coordinator keeps products of tensors exact; leave it out",
        ),
        (
            training.warmup_steps > steps,
            f"training.warmup_steps: {training.warmup_steps} is more than the study's {steps} "
            "steps",
        ),
        (
            training.padded_lengths is not None
            and training.padded_lengths[-1] != recipe.task.max_length,
            f"training.padded_lengths: the last is {(training.padded_lengths or (0,))[-1]}, but "
            f"records have up to task.max_length = {recipe.task.max_length} tokens; make the two "
            "equal",
        ),
        (
            training.adversarial_radius is not None and recipe.task.loss == "dpo",
            'training.adversarial_radius: not possible with task.loss = "dpo": a preference has '
            "two replies, each with a loss and a move of its own; leave one of the two out",
        ),
    ]


def _public_rules(recipe: Recipe) -> Rules:
    """Rules on training on public records, before round 1 and after each round."""
    public, training = recipe.data.public, recipe.training
    begun, replay = recipe.study.start is not None, recipe.federation.public_replay
    stated = [
        name
        for name in ("public_steps", "public_batch_size", "public_learning_rate")
        if getattr(training, name) is not None
    ]
    return [
        (
            public is None and bool(stated),
            f"training.{stated[0] if stated else ''}: given without data.public, the public "
            "records to train on; name their file, or leave it out",
        ),
        (
            public is not None and begun and replay is None and recipe.model.center != "public",
            "data.public: given with --from, but the sites accept the finished run's adapter by "
            "its SHA-256 (study.start), so no public training comes before round 1; set "
            "federation.public_replay, steps after each round, or leave data.public out",
        ),
        (
            begun and training.public_steps is not None,
            "training.public_steps: steps before round 1 given with --from, whose sites accept the "
            "finished run's adapter by its SHA-256; leave it out",
        ),
        (
            public is None and replay is not None,
            "federation.public_replay: given without data.public, the public records to train on; "
            "name their file, or leave it out",
        ),
        (
            public is not None and recipe.lora.train == "b-kept",
            "data.public: each site keeps its own B, which public training cannot reach; set "
            'lora.train = "both" or "b", or leave it out',
        ),
    ]


def _adapter_rules(recipe: Recipe) -> Rules:
    """Rules on heads, ranks and trained parts of adapters."""
    lora, training = recipe.lora, recipe.training
    causal = recipe.task.records == "messages"
    return [
        (
            causal and lora.head not in (None, "frozen"),
            'lora.head: a causal LM uses its own head; leave lora.head out, or set "frozen"',
        ),
        (
            causal and lora.train == "none",
            'lora.train: "none" trains only the head, but a causal LM\'s head is frozen; '
            'set "both" or "b"',
        ),
        (
            lora.head == "label-words" and recipe.task.kind != "sequence-classification",
            f'lora.head: "label-words" given for {recipe.task.kind}; it is for '
            "sequence-classification, whose outputs are labels in words; set another",
        ),
        (
            causal and recipe.model.layers is not None,
            "model.layers: not possible for a causal LM, whose head reads the last layer's states; "
            "leave it out",
        ),
        (
            recipe.model.center is not None and recipe.task.records not in ONE_TEXT,
            f"model.center: given for {recipe.task.kind}, but it is the mean vector of single "
            "texts and is subtracted from a text's vector; pairs have another mean, and words "
            "and turns have no such vector: leave it out",
        ),
        (
            recipe.model.center == "public" and recipe.data.public is None,
            'model.center: "public" is the mean of public records, but there are none; name their '
            'file in data.public, or set "english" or "chinese"',
        ),
        (
            recipe.model.center is not None and recipe.task.kind == "retrieval",
            "model.center: given for retrieval, which compares texts by the angle of their whole "
            "vectors; leave it out",
        ),
        (
            recipe.task.encoder == "bi" and lora.is_prompt,
            f"lora.method: {lora.method} puts vectors before a row, which the second text of "
            'task.encoder = "bi" would not read; choose another',
        ),
        (
            recipe.task.kind == "retrieval" and lora.train == "none" and lora.head == "frozen",
            'lora.head: "frozen" beside lora.train = "none" leaves nothing to train; leave '
            'lora.head out, for a map of the query\'s vector ("linear"), or set "lora"',
        ),
        (
            recipe.model.layers is not None and lora.top_layers > recipe.model.layers,
            f"lora.top_layers: {lora.top_layers} given; model.layers leaves "
            f"{recipe.model.layers} layers",
        ),
        (
            bool(lora.ranks) and lora.head == "lora",
            'lora.head: "lora" has the same rank at every site; with lora.ranks set "linear" or '
            '"frozen"',
        ),
        (
            training.personal and (lora.train in ("b-kept", "b-moving") or bool(lora.residual)),
            "training.personal: a site's own adapter needs a fully shared one whose basis does not "
            'change;  set lora.train = "both", "b" or "alternate", and no lora.residual',
        ),
        (
            training.personal and bool(lora.ranks),
            "training.personal: all personal adapters have one rank; leave lora.ranks out",
        ),
        (
            lora.train == "b-kept" and lora.use_dora,
            'lora.use_dora: lora.train = "b-kept" shares only A, but DoRA has a third part',
        ),
        (
            lora.method == "ia3" and training.weight_decay > 0,
            "training.weight_decay: pulls vectors to 0, but IA³'s vectors change nothing at 1; "
            "leave it out",
        ),
    ]


def _sharing_rules(recipe: Recipe) -> Rules:
    """Rules on noise that sites share."""
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
            'training.mode: shared noise is added once per round, to one gradient;  set "'
            'gradient-rounds", or privacy.noise = "site"',
        ),
        (
            privacy.noise_multiplier == 0,
            "privacy.noise_multiplier: 0 leaves no noise to share; give one, or set "
            'privacy.noise = "site"',
        ),
        (
            isinstance(declared, tuple) and len(set(declared)) > 1,
            "data.public_records: with shared noise all sites have the same plan, so one number is "
            "needed; give the smallest",
        ),
        (
            training.update_dtype != "float32",
            "training.update_dtype: a secure sum adds integers; leave it out, and set "
            "privacy.secure_bits",
        ),
        (
            lora.train == "b-kept" or bool(lora.ranks),
            "lora: with shared noise every site sends the same tensors and keeps none; leave "
            'lora.ranks out, and set lora.train = "both", "b" or "alternate"',
        ),
        (
            sharing is not None and fewest not in (None, sharing.threshold),
            f"federation.min_sites: {fewest} given; with shared noise it is set by "
            f"privacy.missing_sites: {sharing.threshold if sharing else 0}; leave it out",
        ),
    ]


def _band_rules(recipe: Recipe) -> Rules:
    """Rules on noise that is correlated over rounds."""
    privacy, training, lora = recipe.privacy, recipe.training, recipe.lora
    rounds, bands = recipe.federation.num_rounds, privacy.bands
    if bands == 1:
        return []
    declared = recipe.data.public_records
    fewest = min(declared) if isinstance(declared, tuple) else declared
    rate = bands * training.expected_batch_size / fewest
    return [
        (
            training.local_steps != 1,
            f"privacy.noise_bands: needs one step a round, training.local_steps is "
            f"{training.local_steps}; set it to 1 with more rounds, or leave noise_bands out",
        ),
        (
            rounds % bands != 0,
            f"privacy.noise_bands: {bands} does not divide federation.num_rounds = {rounds}; a "
            f"cycle is charged as a whole: set {rounds + bands - rounds % bands} rounds, or other "
            "bands",
        ),
        (
            rate > 1,
            f"privacy.noise_bands: {bands} groups at training.expected_batch_size = "
            f"{training.expected_batch_size} of {fewest} records are a sample rate of {rate:.3g} "
            "in a group, above 1; set fewer bands or a smaller batch",
        ),
        (
            lora.train in ("alternate", "b-moving"),
            f'privacy.noise_bands: with lora.train = "{lora.train}" rounds train different values, '
            'whose noise cannot cancel; set "both", "b" or "none", or leave noise_bands out',
        ),
        (
            0 < training.probe_rounds < rounds,
            "privacy.noise_bands: training.probe_rounds trains other values first, whose noise "
            "cannot cancel; leave one of them out",
        ),
    ]


def _central_rules(recipe: Recipe) -> Rules:
    """Rules on noise that the coordinator adds."""
    privacy, sites = recipe.privacy, recipe.data.sites
    if privacy.site_epsilon is None or not privacy.enabled:
        return []
    return [
        (
            sites < SENSIBLE_SITES and not privacy.site_noise_forced,
            f"privacy.site_epsilon: with {sites} sites the noise that hides a whole site is much "
            f"larger than all updates (tens of times any update; at least {SENSIBLE_SITES} sites "
            "are sensible); leave it out (each site's records are protected without it), or set "
            "privacy.site_noise_forced = true",
        ),
        (
            privacy.noise == "shared",
            "privacy.site_epsilon: under secure aggregation the coordinator sees no single update, "
            'so it cannot bound its norm;  leave it out, or set privacy.noise = "site"',
        ),
        (
            recipe.lora.train == "b-kept" or bool(recipe.lora.ranks),
            "lora: noise at the coordinator needs updates of the same shape; leave lora.ranks "
            'and lora.train = "b-kept" out',
        ),
    ]
