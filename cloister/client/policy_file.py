"""The policy sections of `site.toml`: the limits that an institution sets, one frozen value each.

The institution owns the file. It is read as a whole or refused as a whole: a missing file, an
unknown key or an invalid value trains nothing. `EXAMPLE` is such a file. Each section is a field of
`SitePolicy`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tomli_w

from cloister.bounds import (
    LARGE,
    MOST_NAME,
    MOST_ROUNDS,
    MOST_SITES,
    MOST_STEPS,
    SMALL,
    Between,
    Items,
    Text,
    shortened,
)
from cloister.errors import RecipeError, UsageError
from cloister.fields import as_table, check_bounds, read_section
from cloister.ledger.budget import Budget
from cloister.models.config import Method
from cloister.privacy.accounting import LARGEST_EPSILON, SMALLEST_DELTA, SMALLEST_NOISE
from cloister.privacy.events import MOST_NOISE
from cloister.privacy.units import Unit
from cloister.protocol.exchange import Status
from cloister.tasks.config import LONGEST_RECORD, TaskName
from cloister.tasks.plugins import check_names
from cloister.toml_text import parse_toml, read_toml

# Every key without a default is here; the hash is the quickstart's base model.
EXAMPLE = """\
[budget]                    # of the data set, over its lifetime and all studies
epsilon = 8.0
delta = 1e-5
study_epsilon = 4.0         # most of it that one study may use

[privacy]                   # plans are tightened to these limits
unit = "person"
person = "patient_id"       # the column that names persons
min_noise_multiplier = 0.8
max_grad_norm = 1.0
max_sample_rate = 0.25
max_delta = 1e-6
isolate_units = false       # true: every record computed alone, several times slower

[accept]
tasks = ["sequence-classification", "token-classification"]
base_sha256 = ["53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"]
target_modules = ["query", "value"]
methods = []                # kinds of adapter (lora.method): any
max_rounds = 50
max_local_steps = 4
max_message_bytes = 200_000_000 # rank 16 on all linear modules of 8 billion parameters takes 168 MB
max_adapter_value = 100.0
max_length = 512            # tokens of a record
templates = []              # SHA-256 of accepted chat templates in recipes; empty: none
evaluations = false         # true: noised statistics of held-out units leave, counted by ε
votes = false               # true: noised counts of all units' votes leave, counted by ε
noise_partners = []         # keys of the ledgers whose share of the noise is relied on
min_colluding = 1           # how many of them may collude with the coordinator, at least
"""

# float32 sums and their grid hold clipping bounds of this size, as in `PrivacyConfig`.
SMALLEST_BOUND, LARGEST_BOUND = SMALL, LARGE
# Below it no test for presence gains a measurable advantage, as in `PrivacyConfig`.
SMALLEST_EPSILON = 1e-4
# The longest message of gRPC and protobuf.
MOST_MESSAGE_BYTES = 2**31 - 1
# Most entries of a list that a person at the site has to check one by one.
MOST_NAMED = 1000

Named = Annotated[tuple[str, ...], Items(MOST_NAMED)]


@dataclass(frozen=True, kw_only=True)
class BudgetPolicy:
    """The `[budget]` section.

    Attributes:
        epsilon: ε that all releases from the data set may cost over its lifetime, per unit added or
            removed; `inf`, which must be stated, for simulations that protect nothing. No default:
            only the institution can decide it.
        delta: δ of the same; no default: it should be below 1/(10 n), and only the institution
            knows n.
        study_epsilon: ε that one study's whole plan may cost; absent: what the budget covers.
    """

    # Above `LARGEST_EPSILON` every ε counts as ∞: such a budget would protect nothing without
    # saying so.
    epsilon: Annotated[float, Between(SMALLEST_EPSILON, LARGEST_EPSILON, or_infinite=True)]
    delta: Annotated[float, Between(2 * SMALLEST_DELTA, 1.0, below=True)]
    study_epsilon: Annotated[float, Between(SMALLEST_EPSILON, LARGEST_EPSILON)] | None = None

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """The `[privacy]` section: a plan is tightened to it, never loosened.

    Attributes:
        unit: The smallest unit whose presence must be hidden. `record` is the default because it
            needs no column; state `person` wherever one person may have several records.
        person: Column that names the person; needed where the unit is a person.
        min_noise_multiplier: Least noise standard deviation over the clipping bound. With the
            default one step has ε = 8 (δ = 1e-5) even against somebody who knows the batch; 8 is
            the largest ε at which published DP fine-tuning is compared.
        max_grad_norm: Largest bound on one unit's gradient. It affects utility, not ε, as the noise
            is a multiple of it. The default is the recipe's; `inf` is for simulations alone.
        max_sample_rate: Largest probability with which a unit is in a batch. The default is twice
            the quickstart's 1/4; at rates near 1 sampling hides little. It says nothing of private
            evaluations, which draw no batch: each counts every held-out unit, and its whole cost is
            in the study's ε (`accept.evaluations`).
        max_delta: Largest δ that a study may state. The default is the recipe's, fit for sites of
            up to 10,000 records.
        isolate_units: Compute every record's gradient alone, several times slower. Otherwise
            records share a batch, and `cloister.training.proof` only tests on this machine that
            this changes no bit.
    """

    unit: Unit = Unit.RECORD
    person: Annotated[str, Text(MOST_NAME)] | None = None
    min_noise_multiplier: Annotated[float, Between(0.0, MOST_NOISE)] = 0.6
    max_grad_norm: Annotated[float, Between(SMALLEST_BOUND, LARGEST_BOUND, or_infinite=True)] = 8.0
    max_sample_rate: Annotated[float, Between(0.0, 1.0)] = 0.5
    max_delta: Annotated[float, Between(SMALLEST_DELTA, 1.0, below=True)] = 1e-5
    isolate_units: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.person == "":
            raise UsageError("person: empty; give the column's name, or leave it out")
        if not self.max_sample_rate > 0:
            raise UsageError(
                f"max_sample_rate: {self.max_sample_rate} given; a number above 0, at most 1, is "
                "needed"
            )


@dataclass(frozen=True, kw_only=True)
class AcceptPolicy:
    """The `[accept]` section: the studies that the site joins at all.

    Attributes:
        tasks: Kinds of task; no default. A plug-in by its name: its code then runs over the
            records, in the version that the study states, which must be the one installed here.
        base_sha256: SHA-256 of the base models' weights; no default: the records go through it.
        target_modules: Modules that may get an adapter, by their whole path or its ending (`value`
            is every `….value`); empty: any, as they affect utility and the message's size, not ε.
        methods: Kinds of adapter (`lora.method`); empty: any, for the same reason.
        max_rounds: Most rounds; a longer plan is cut. The default is over three times the
            quickstart's 30, and above every recipe's in `simulations/`.
        max_local_steps: Most optimizer steps in a round; a longer round is cut. The default is ten
            times the quickstart's, a bound on time; the budget bounds ε.
        max_message_bytes: Longest message; the default holds rank 8 on queries and values of a
            model of 7 billion parameters (4.2 million float32 values, 17 MB).
        max_adapter_value: Largest value in a global adapter. The default is far above what training
            gives (the quickstart ends below 0.3); isolation is tested up to this value
            (`cloister.training.proof`).
        max_length: Longest record in tokens that a study may ask for; a bound on time and memory.
            The default is the context that Llama 2 was trained with.
        templates: SHA-256 of the chat templates that a recipe may bring. Read each before you add
            it: a template runs over every record. Empty: none but the base tokenizer's own and the
            plain one.
        evaluations: Whether the site joins studies with private evaluations, in which noised
            statistics of its held-out units leave, too. The default is no: an institution may hold
            units out to score adapters at home, and that alone permits no release about them.
        votes: Whether the site joins studies of votes, in which nothing is trained: every unit
            votes for the public text nearest to it, and noised counts leave. The default is no: no
            batch is drawn, so each round counts every unit. `privacy.max_sample_rate` and
            `privacy.max_grad_norm` say nothing of votes, each of which has length 1.
        noise_partners: Public keys (hex) of the ledgers of the institutions whose share of the
            noise this site relies on, in studies with shared noise under secure aggregation. Get
            each key from its institution, not from the coordinator. Empty: the site joins no such
            study.
        min_colluding: In such a study, how many of these at least may collude with the coordinator
            without raising this site's ε.
    """

    tasks: Annotated[tuple[TaskName, ...], Items(MOST_NAMED)]
    base_sha256: Named
    target_modules: Annotated[tuple[Annotated[str, Text(MOST_NAME)], ...], Items(MOST_NAMED)] = ()
    methods: Annotated[tuple[Method, ...], Items(MOST_NAMED)] = ()
    max_rounds: Annotated[int, Between(1, MOST_ROUNDS)] = 100
    max_local_steps: Annotated[int, Between(1, MOST_STEPS)] = 10
    max_message_bytes: Annotated[int, Between(1, MOST_MESSAGE_BYTES)] = 20_000_000
    max_adapter_value: Annotated[float, Between(SMALL, LARGE)] = 100.0
    max_length: Annotated[int, Between(1, LONGEST_RECORD)] = 4096
    templates: Named = ()
    evaluations: bool = False
    votes: bool = False
    noise_partners: Annotated[tuple[str, ...], Items(MOST_SITES)] = ()
    min_colluding: Annotated[int, Between(0, MOST_SITES)] = 1

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("tasks", "base_sha256"):
            if not getattr(self, name):
                raise UsageError(f"{name}: empty; no study could ever be joined: name at least one")
        check_names("tasks", self.tasks)
        for name in ("base_sha256", "noise_partners", "templates"):
            for digest in getattr(self, name):
                if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                    raise UsageError(
                        f"{name}: {digest!r} given; 64 lower-case hexadecimal digits are needed"
                    )
        if "" in self.target_modules:
            raise UsageError("target_modules: an empty name given; leave the key out for any")


@dataclass(frozen=True, kw_only=True)
class StatusPolicy:
    """The `[status]` section of older files: read, but without effect.

    The words that leave are fixed (`protocol.exchange.WORDS`), and none depends on a record.
    Withholding one would hide nothing: its absence would say the same.

    Attributes:
        allowed: Without effect; in older versions, the words that could leave.
    """

    allowed: tuple[Status, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SitePolicy:
    """An institution's whole policy.

    Raises:
        RecipeError: Sections contradict each other; every contradiction, one per line.
    """

    budget: BudgetPolicy
    accept: AcceptPolicy
    privacy: PrivacyPolicy = field(default_factory=PrivacyPolicy)
    status: StatusPolicy = field(default_factory=StatusPolicy)

    def __post_init__(self) -> None:
        budget, privacy = self.budget, self.privacy
        noise, cap = privacy.min_noise_multiplier, budget.study_epsilon
        is_bounded = budget.epsilon < math.inf or cap is not None
        rules = [
            (
                privacy.unit is Unit.PERSON and privacy.person is None,
                'privacy.person: missing; name the column of persons, which privacy.unit = "person"'
                " needs",
            ),
            (
                cap is not None and cap > budget.epsilon,
                f"budget.study_epsilon: {cap} is above budget.epsilon = {budget.epsilon}; one "
                "study cannot cost more than all studies",
            ),
            (
                is_bounded and noise < SMALLEST_NOISE,
                f"privacy.min_noise_multiplier: {noise} given; with a finite budget at least "
                f"{SMALLEST_NOISE} is needed, the least that the accountants take",
            ),
            (
                math.isinf(privacy.max_grad_norm) and (is_bounded or noise > 0),
                "privacy.max_grad_norm: inf given; noise needs a bound: give a finite one (only "
                "a simulation with budget.epsilon = inf and min_noise_multiplier = 0 goes without)",
            ),
        ]
        problems = [problem for broken, problem in rules if broken]
        if problems:
            raise RecipeError(problems)

    @property
    def lifetime(self) -> Budget:
        """The lifetime budget, against which the site's ledger checks every charge."""
        return Budget(epsilon=self.budget.epsilon, delta=self.budget.delta)

    def to_toml(self) -> str:
        """The policy as TOML that reads back equal, with every default."""
        return tomli_w.dumps({f.name: as_table(getattr(self, f.name)) for f in _fields(SitePolicy)})


def read_policy(path: Path) -> SitePolicy:
    """Reads a site's policy from its file.

    Raises:
        BadFileError: The file is missing, unreadable or not valid TOML.
        RecipeError: The file is invalid; all problems at once, each with the file's path.
    """
    tables = read_toml(path, "without it nothing is trained")
    try:
        return policy_of(tables)
    except RecipeError as error:
        raise RecipeError([f"{path}: {problem}" for problem in error.problems]) from error


def parse_policy(text: str) -> SitePolicy:
    """Reads a policy from TOML text; see `read_policy`.

    Raises:
        tomllib.TOMLDecodeError: The text is not valid TOML.
        RecipeError: The policy is invalid; all problems at once.
    """
    return policy_of(parse_toml(text))


def policy_of(tables: Mapping[str, object]) -> SitePolicy:
    """Builds a policy from the sections of its file.

    Raises:
        RecipeError: The policy is invalid; all problems at once.
    """
    kinds = typing.get_type_hints(SitePolicy)
    problems = [
        f"{shortened(name)[1:-1]}: unknown section; known: {', '.join(kinds)}"
        for name in tables
        if name not in kinds
    ]
    sections: dict[str, typing.Any] = {}
    for name, kind in kinds.items():
        table = tables.get(name, {})
        if isinstance(table, dict):
            sections[name] = _read(kind, table, name, problems)
        else:
            problems.append(f"{name}: {shortened(table)} given; a section [{name}] is needed")
    if problems:
        raise RecipeError(problems)
    return SitePolicy(**sections)


def _read(kind: type, table: Mapping[str, object], name: str, problems: list[str]) -> object:
    """Reads a section; each key is also read alone, so that one invalid key hides no other."""
    found = len(problems)
    required = [f.name for f in _fields(kind) if _is_required(f)]
    example: Any = parse_toml(EXAMPLE).get(name, {})
    problems += [
        f"{name}.{key}: missing, and it has no default; for example {key} = "
        f"{json.dumps(example[key])}"
        for key in required
        if key not in table
    ]
    stand_in = {key: example[key] for key in required}
    for key, value in table.items():
        read_section(kind, {**stand_in, key: value}, name, problems)
    return None if len(problems) > found else read_section(kind, table, name, problems)


def _fields(kind: type) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(kind)


def _is_required(f: dataclasses.Field[object]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
