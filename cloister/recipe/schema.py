"""Defines a recipe: a whole study as one frozen value.

The room that uses a section defines it; this module composes them. `cloister.recipe.rules` has the
rules between sections.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cloister.bounds import (
    LARGE,
    LARGEST_INTEGER,
    MOST_ROUNDS,
    MOST_SITES,
    MOST_STEPS,
    Between,
    Text,
)
from cloister.data.config import DataConfig
from cloister.data.public_file import is_sha256
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy.config import PrivacyConfig
from cloister.recipe import document
from cloister.recipe.votes_config import VotesConfig
from cloister.strategies.build import effective
from cloister.strategies.config import Strategies, StrategyConfig
from cloister.tasks.config import TaskConfig
from cloister.training.config import TrainingConfig
from cloister.training.machine import MachineConfig

# SHA-256 of model.safetensors of the quickstart's base, the same on the hub and in the package.
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Longest name in characters; folders are named after it: 255 bytes on common file systems, up to 4
# per character, minus the time.
LONGEST_STUDY_NAME = 56
# Longest deadline of a deployed round: a week. No constant of Flower is shorter.
LONGEST_TIMEOUT = 7 * 24 * 3600.0
# 10⁶ MiB are about a TiB, more memory than a coordinator has.
MOST_MIB = 2.0**20

Rounds = Annotated[int, Between(1, MOST_ROUNDS)]
Seconds = Annotated[float, Between(1e-3, LONGEST_TIMEOUT)]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The `[study]` section: the study's name and its seed.

    Attributes:
        name: Name of the study in reports: letters, digits, `-` and `_`.
        seed: Seed of everything that may be reproducible: the start of the adapters, partitions.
            Private sampling and noise never use it.
        start: SHA-256 of the adapter of a finished run with which the study begins; `--from` fills
            it in. Absent: the study begins with a fresh adapter.
        former: The digest of that run's study; `--from` fills it in. Absent: none.
    """

    name: Annotated[str, Text(LONGEST_STUDY_NAME)] = field(
        default="hospital-triage", metadata=called("title experiment")
    )
    seed: Annotated[int, Between(0, LARGEST_INTEGER)] = field(
        default=0, metadata=called("random_seed random_state")
    )
    start: Annotated[str, Text(64)] | None = field(default=None, metadata=LATER)
    former: Annotated[str, Text(64)] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("start", "former"):
            value = getattr(self, name)
            if value is not None and not is_sha256(value):
                raise UsageError(
                    f"{name}: 64 lower-case hexadecimal digits are needed; leave it out, and begin "
                    "with a finished run's adapter by --from RUN"
                )
        if (self.start is None) is not (self.former is None):
            raise UsageError(
                "start, former: only one of them given; leave both out, and begin with a finished "
                "run's adapter by --from RUN"
            )
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"name: {self.name!r} given; letters, digits, - and _ are allowed")


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """The `[federation]` section.

    Attributes:
        num_rounds: Rounds of the study.
        min_sites: A round with fewer updates ends the run. Absent: every site must answer whose
            budget is not spent.
        round_timeout: Seconds after which a round is closed with the updates that have arrived.
        absent_timeout: For deployments. Seconds that a round waits for unconnected sites once
            `min_sites` sites are connected; also the seconds before a connected site that does not
            answer is asked again. If that is longer, a site gets twice as long as its last answer
            to such a question took, up to half of `round_timeout`. Flower accepts a site whose
            connection broke again after 60 s; the default is twice that.
        evaluate_every: Evaluate at the coordinator once in this number of rounds, and always after
            the last round.
        patience: Stop after this number of evaluations without a better score, and deliver the best
            adapter. The score is that on the public `data.validation`; in a study without such a
            file, the estimate of its private evaluations (`privacy.evaluation_rounds`), which is
            noisy, so that of the best round is too good on average. The promised ε stays that of
            the whole plan. Absent: no early stopping.
        proximal_start: μ of a proximal step that the coordinator takes after each round, from the
            new adapter x towards the adapter x₀ before round 1: x ← (x + μ x₀) / (1 + μ). For a
            study that begins with a finished run's adapter it limits forgetting, and it costs no
            privacy. `training.proximal` pulls towards the adapter of each round. Absent: none.
        public_replay: Plain steps that the coordinator takes on `data.public` after each round, so
            that a study that begins with a finished run's adapter forgets less of what public
            records of the earlier task teach. It costs no privacy. Absent: none.
    """

    num_rounds: Rounds = field(default=30, metadata=called("rounds num_server_rounds epochs"))
    min_sites: Annotated[int, Between(1, MOST_SITES)] | None = field(
        default=None, metadata=called("min_clients min_fit_clients min_available_clients")
    )
    round_timeout: Seconds = 3600.0  # Flower's own default for one exchange
    absent_timeout: Seconds = 120.0
    evaluate_every: Rounds = 1
    patience: Rounds | None = None
    proximal_start: Annotated[float, Between(0.0, LARGE)] | None = field(
        default=None, metadata={**LATER, **called("l2_sp anchor ewc")}
    )
    public_replay: Annotated[int, Between(1, MOST_STEPS)] | None = field(
        default=None, metadata={**LATER, **called("replay rehearsal experience_replay")}
    )

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The `[tracking]` section: settings of the coordinator, which are not sent to sites.

    Attributes:
        tensorboard: Write TensorBoard files into the run directory.
        aggregation_error_mib: Memory in MiB for a round's updates, which are kept to compute how
            far the new model is from the mean of the sites' models. If all updates need more, this
            is not computed, and a linear strategy sums the updates as they arrive, so memory does
            not grow with the number of sites. 0: never compute it. The default holds 50 updates of
            RoBERTa-base with rank 8 (1.2 MB each).
    """

    tensorboard: bool = True
    aggregation_error_mib: Annotated[float, Between(0.0, MOST_MIB)] = 64.0

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study. Its defaults are four synthetic hospitals with ε = 8 each.

    The quickstart, which runs without a recipe, has other rounds (`cloister.recipe.quickstart`).

    Attributes:
        study: Name and seed.
        model: The frozen base.
        lora: What is trained on it.
        task: The task that is learnt.
        data: Records and sites.
        training: A site's training in a round.
        privacy: The promise to every site.
        federation: Rounds, quorum and patience.
        strategy: How updates are aggregated; at a site it is kept as it was sent, not parsed.
        machine: Settings of the machine that runs, such as memory; never sent.
        tracking: Settings of the coordinator; never sent.
        votes: Of a study of votes, its candidates; it trains nothing (`recipe.vote_study`). None: a
            study that trains.
        begun: Set if the study began under format 1, whose digest also covers these machine
            settings; such a study keeps its digest to its end.
        format: The format under which the study began, if not format 1; its document stays in it
            to the study's end.
        notes: Changes that were made while it was read, for the user; not part of the study.
        has_stand_in: Whether its file names no training data, so that the quickstart's are used.
        run_folder: The folder of the run that it was read from; None: it is not a run's.
    """

    study: StudyConfig = field(default_factory=StudyConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(sha256=DEFAULT_SHA256))
    lora: LoraConfig = field(default_factory=LoraConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    strategy: Strategies = field(default_factory=StrategyConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    votes: VotesConfig | None = None
    begun: MachineConfig | None = None
    format: int = document.FORMAT
    notes: tuple[str, ...] = field(default=(), compare=False)
    has_stand_in: bool = field(default=False, compare=False)
    run_folder: Path | None = field(default=None, compare=False)

    def sections(self) -> dict[str, object]:
        """Returns the sections of the recipe by name."""
        own = {name: getattr(self, name) for name in SECTIONS}
        return own if self.votes is None else {**own, "votes": self.votes}

    def resolved(self) -> Recipe:
        """Returns the study with all defaults that depend on other fields filled in.

        Fields that have no value stay absent: `federation.min_sites` (all must answer),
        `data.person`, `task.chat_template` (the tokenizer's own) and others.
        """
        causal = self.task.records == "messages"
        strategy = self.strategy
        if isinstance(strategy, StrategyConfig):
            strategy = effective(strategy)
        return dataclasses.replace(
            self,
            lora=dataclasses.replace(
                self.lora,
                head=self.lora.head or ("frozen" if causal else "linear"),
                rslora=self.lora.rslora or None,
                rank_pattern=self.lora.rank_pattern or None,
                method=None if self.lora.is_lora else self.lora.method,
                tokens=self.lora.virtual_tokens or None,
                freeze=self.lora.freeze or None,
            ),
            training=self._stated_training(),
            privacy=dataclasses.replace(
                self.privacy,
                epsilon=self.privacy.target_epsilon,
                evaluation_noise_multiplier=self.privacy.evaluation_noise,
            ),
            strategy=strategy,
        )

    @property
    def selects_privately(self) -> bool:
        """Whether estimates of private evaluations decide when the study stops and which round's
        adapter is delivered."""
        is_public = self.data.validation is not None
        has_estimates = self.privacy.evaluations is not None
        return self.federation.patience is not None and has_estimates and not is_public

    @property
    def public_steps(self) -> int:
        """Steps on public records before round 1; 0 without such records, and with `--from`, whose
        study begins with the adapter that the sites accepted."""
        if self.data.public is None or self.study.start is not None:
            return 0
        return self.training.public_step_count

    @property
    def most_steps(self) -> int:
        """The most steps that a site is charged for in the study, private evaluations among
        them."""
        rounds = self.training.local_steps * self.federation.num_rounds
        return rounds + len(self.privacy.evaluation_rounds or ())

    @property
    def begins_from_seed(self) -> bool:
        """Whether tensors that no round has trained yet have the values that the seed gives."""
        is_fresh = self.study.start is None and not self.public_steps
        return is_fresh and self.federation.public_replay is None

    def _stated_training(self) -> TrainingConfig:
        """The `[training]` section with its values for public records, where there are some."""
        training = self.training
        if self.data.public is None:
            return training
        return dataclasses.replace(
            training,
            public_steps=self.public_steps or None,
            public_batch_size=training.public_batch,
            public_learning_rate=training.public_rate,
        )

    def document(self) -> str:
        """Returns the text that is sent to sites: see `cloister.recipe.document`."""
        if self.begun is not None:
            return document.old_document(self.sections(), self.begun)
        return document.document(self.resolved().sections(), self.format)

    def digest(self) -> str:
        """Returns the SHA-256 of the document, in hex: equal studies have equal digests everywhere.

        Guarantees:
            It covers every field that a site reads, with its value, so that two versions with
            other defaults never give one digest for different plans.
        """
        if self.begun is not None:
            return document.old_digest(self.sections(), self.begun)
        return hashlib.sha256(self.document().encode()).hexdigest()

    def to_toml(self) -> str:
        """Returns the recipe as TOML with every value, which reads back as an equal recipe."""
        if self.begun is not None:
            return document.old_toml(self.sections(), self.begun)
        return document.toml(self.resolved().sections(), self.format)


SECTIONS = tuple(
    f.name
    for f in dataclasses.fields(Recipe)
    if f.name not in ("votes", "begun", "format", "notes", "has_stand_in", "run_folder")
)
