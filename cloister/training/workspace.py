"""Loads everything that a process needs for a study once: base, tokenizer, task and network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cloister.adapter.factor_pairs import find_pairs
from cloister.adapter.tensors import Adapter
from cloister.data.records import Record
from cloister.models.base import check_base, find_base, load_tokenizer
from cloister.models.build import build_network, carried_names
from cloister.models.center import feature_center, given_center
from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.config import LoraConfig, Method, ModelConfig
from cloister.models.device import check_devices, find_device
from cloister.models.item_vectors import ItemVectors, item_vectors
from cloister.models.kinds import read_config
from cloister.models.limits import limits_of
from cloister.models.lora import factor
from cloister.models.network import Network
from cloister.models.passage_head import set_passages
from cloister.models.state import read_adapter, read_tensors
from cloister.models.trial import check_apart, check_reads, check_reads_backwards
from cloister.tasks.build import build_task, padding_id
from cloister.tasks.config import TaskConfig
from cloister.tasks.fit import Limits, check_fit
from cloister.tasks.label_words import label_tokens
from cloister.tasks.pairs import TextPairs
from cloister.tasks.recommendation import Recommendation
from cloister.tasks.retrieval import Retrieval
from cloister.tasks.task import Example, Task
from cloister.training.config import TrainingConfig
from cloister.training.free_memory import free_at_start
from cloister.training.frozen_caches import cache_frozen
from cloister.training.gradients import Summing
from cloister.training.team import Opening, Team


@dataclass(frozen=True)
class Workspace:
    """The objects with which a process trains and scores; all sites of a simulation share one.

    Attributes:
        folder: The base's folder.
        base_sha256: SHA-256 of its weights.
        tokenizer: The base's tokenizer.
        task: The task with its labels and the tokenizer.
        network: Scratch space: its parameters are overwritten by every use.
        limits: The largest length and token id of the base.
        start: Initial values of the tensors that may train; the same in every process.
        alternates: Whether rounds alternate between the adapters' two factors.
        carried: Initial values of tensors that sites receive but never train: residuals, and A
            if the coordinator changes it.
        kept: Names of tensors that train and never leave a site.
        team: The processes that sum private batches with this one; None: it sums them alone.
        method: Kind of adapter.
    """

    folder: Path
    base_sha256: str
    tokenizer: PreTrainedTokenizerBase
    task: Task
    network: Network
    limits: Limits
    start: Adapter
    alternates: bool = False
    carried: Adapter = field(default_factory=lambda: Adapter({}))
    kept: frozenset[str] = frozenset()
    team: Team | None = None
    method: Method = "lora"

    @property
    def sent(self) -> Adapter:
        """Returns the initial values of the tensors that may leave a site."""
        return self.start.select(self.start.keys() - self.kept)

    @property
    def summing(self) -> Summing | None:
        """Returns how several processes sum private batches, with the same bits as one process.

        None: this process sums them alone.
        """
        return None if self.team is None else self.team.clipped_sum

    @property
    def pad_id(self) -> int:
        """Returns the token id of padding."""
        return padding_id(self.tokenizer)

    @property
    def whole(self) -> Adapter:
        """Returns the global adapter before round 1: all tensors that are sent to sites."""
        return Adapter({**self.sent, **self.carried})

    @property
    def frozen_factors(self) -> Adapter:
        """Returns the factors that are neither trained nor sent although their partners are."""
        names = {name for pair in find_pairs(self.start) for name in pair}
        return read_tensors(self.network, names - self.start.keys() - self.carried.keys())

    def encode(self, records: Sequence[Record]) -> list[Example]:
        """Encodes records as token ids and targets."""
        return [self.task.encode(record) for record in records]

    def train_names(self, names: frozenset[str]) -> None:
        """Sets which parameters the network trains."""
        self.network.set_trained(names)

    def trained_in_round(self, config: TrainingConfig, round_number: int) -> frozenset[str]:
        """Returns the names of the tensors that train in a round; all but the kept ones are sent.

        In probe rounds it is only the head; afterwards, if factors alternate, B comes first: A has
        no gradient while B is zero.
        """
        if config.is_probe(round_number):
            return frozenset(name for name in self.start if name.startswith("head."))
        if not self.alternates:
            return frozenset(self.start)
        rests = "a" if (round_number - config.probe_rounds) % 2 else "b"
        return frozenset(
            name for name in self.start if name.startswith("head.") or factor(name) != rests
        )


def open_workspace(
    model: ModelConfig,
    lora: LoraConfig,
    task: TaskConfig,
    labels: tuple[str, ...],
    seed: int,
    *,
    frozen_cache_gib: float = 0.0,
    device: str | None = None,
    attention: str | None = None,
    processes: int | None = None,
    gradient_checkpointing: bool = False,
    adversarial_radius: float | None = None,
    items: ItemVectors | None = None,
) -> Workspace:
    """Finds, checks and loads the base, and attaches adapters and head.

    Simulations, sites, coordinators and scoring all make their network here: a study that does not
    fit the base is refused here, before anything is charged.

    Args:
        model: The `[model]` section.
        lora: The `[lora]` section.
        task: The `[task]` section.
        labels: Class names or entity types.
        seed: The study's seed.
        frozen_cache_gib: Memory for the cache of frozen layers' states, in GiB; a base whose states
            cannot be cached computes them each time.
        device: `machine.device`; None: the GPU if there is one.
        attention: `machine.attention`; None: transformers chooses for the base.
        processes: `machine.processes`; the cache of frozen layers is divided among them. None:
            one.
        gradient_checkpointing: Whether activations are recomputed in the backward pass.
        adversarial_radius: `training.adversarial_radius`; with one, no states of frozen layers are
            cached, since they follow from embeddings that each step moves. None: nothing moves.
        items: For recommendation: the items' vectors, if they are known; None: the base computes
            them.

    Raises:
        DataError: The public items are not here, or are not the study's.
        ModelFileError: The base is missing, damaged or not the expected one, or its tokenizer is
            that of another base.
        UsageError: The sections do not fit the base.
        RefusedError: The device does not exist here, or there are fewer devices than processes.
    """
    frozen_cache_gib /= processes or 1
    free_at_start(find_device(device))  # before anything of a study is in memory
    folder = find_base(model.base)
    sha256 = check_base(folder, model.sha256)
    read_config(folder)  # refuses a wrapper before its tokenizer or weights are read
    tokenizer = load_tokenizer(folder)
    bound = build_task(task, labels, tokenizer)
    words: list[list[int]] = []
    if lora.head == "label-words":
        words = label_tokens(tokenizer, bound.labels, getattr(bound, "prompt", None))
    network = build_network(
        folder,
        model,
        lora,
        bound.record_kind,
        len(bound.labels),
        seed,
        words,
        device=device,
        attention=attention,
        compares=isinstance(bound, Retrieval),
        apart=bound.compare if isinstance(bound, TextPairs) else None,
    )
    limits = limits_of(network.base, network.virtual_tokens)
    check_fit(limits, model.base, task.max_length, tokenizer.get_vocab(), padding_id(tokenizer))
    check_reads(network, model.base, padding_id(tokenizer))
    if bound.record_kind == "messages":
        check_reads_backwards(network, model.base)
    if network.two is not None:
        check_apart(network, model.base, task.max_length)
    if frozen_cache_gib and not adversarial_radius:
        cache_frozen(
            network,
            bound,
            model,
            lora,
            sha256=sha256,
            attention=attention,
            vocabulary=limits.vocabulary or 1,
            max_gib=frozen_cache_gib,
        )
    if model.center == "public":
        hidden = int(network.base.config.get_text_config().hidden_size)
        network.center = given_center(network, model.center_values, hidden)
    elif model.center is not None and model.center != "none":
        network.center = feature_center(network, bound, model.center)
    if isinstance(bound, Recommendation):
        made = items or item_vectors(network, bound)
        network.items, network.center = made.vectors.to(network.device), made.center
    if isinstance(bound, Retrieval):
        set_passages(network, bound)
    if gradient_checkpointing:
        layers = int(network.base.config.get_text_config().num_hidden_layers)
        network.checkpoints = CheckpointedLayers(network.backbone, layers)
    network.adversarial_radius = adversarial_radius or 0.0
    start = read_adapter(network)
    carried = read_tensors(network, carried_names(network, lora.train))
    team = None
    if processes is not None and processes > 1:
        check_devices(network.device, processes)
        opening = Opening(
            model,
            lora,
            task,
            labels,
            seed,
            frozen_cache_gib,
            attention,
            gradient_checkpointing,
            adversarial_radius,
        )
        team = Team(opening, processes, frozenset(start.keys() | carried.keys()))
    return Workspace(
        folder=folder,
        base_sha256=sha256,
        tokenizer=tokenizer,
        task=bound,
        network=network,
        limits=limits,
        start=start,
        alternates=lora.train == "alternate",
        carried=carried,
        kept=frozenset(name for name in start if lora.train == "b-kept" and factor(name) == "b"),
        team=team,
        method=lora.method or "lora",
    )
