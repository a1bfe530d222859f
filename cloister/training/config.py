"""The `[training]` section of a recipe: what a site does in one round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cloister.bounds import LARGE, MOST_RECORDS, MOST_ROUNDS, MOST_STEPS, Between, Items
from cloister.errors import UsageError
from cloister.fields import ELSEWHERE, LATER, called, check_bounds

# Smaller steps are lost in float32 beside adapters of size 1.
Rate = Annotated[float, Between(1e-12, LARGE)]
# Most padded tokens of a pass: a thousand times a long context (131,072 tokens).
MOST_TOKENS = 2**27
# Padded tokens of a pass without privacy, if the machine states none: among the fastest of 512…8192
# in one noisy run of MiniLM. It is a constant because the rounding of such a pass depends on its
# contents, and scores must not depend on free memory.
PLAIN_TOKENS = 2048
# Steps and batch of training on public records where a recipe states none: 6,400 draws, six passes
# over a thousand records. More steps than that gained nothing in docs/utility.md.
PUBLIC_STEPS, PUBLIC_BATCH = 200, 32
# Most padded lengths: more than records of 131,072 tokens get where a recipe states none (52).
MOST_LENGTHS = 64
# GiB; the largest machines have 64 TiB.
MOST_CACHE = 2.0**16


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The `[training]` section: what a site computes in a round.

    The defaults were found on the synthetic hospitals: large batches and single steps, because the
    noise of all sites is averaged at every step.

    Attributes:
        mode: `gradient-rounds`: one Poisson batch per round and no optimizer at the site
            (DP-FedSGD; McMahan et al. 2017, arXiv:1602.05629, §2): what is sent is the noised mean
            gradient times the learning rate, the server's `[strategy]` is the optimizer, and K
            sites behave like one site with all records. `local-steps`: `local_steps` private steps
            per round, then the clipped delta is sent; fewer bytes for the same number of steps.
        expected_batch_size: Mean size of a Poisson batch; over `data.public_records` it is the
            sample rate. Also the constant that gradients are divided by.
        local_steps: Optimizer steps a site takes in a round.
        learning_rate: Peak learning rate. A recipe of token classification that states none gets
            24 (`cloister.recipe.defaults`). One that classifies texts by a head alone
            (`lora.train = "none"`), in gradient rounds, and states neither a rate nor
            `privacy.max_grad_norm`, gets a clip bound of 1 and the rate that fits its noise; with
            another base than the default also `model.normalize = true` and a built-in
            `model.center`, unless it states them. A head alone that finds entities on the default
            base gets a clip bound of 0.3 and a rate likewise (`cloister.recipe.head_defaults`).
        optimizer: The optimizer at a site: `sgd`, `adamw`, or `adam-bc`, which is Adam with the
            known noise variance subtracted from its second moment (DP-AdamBC; Tang et al. 2024,
            arXiv:2312.14334). Each site keeps its moments over the rounds, beside its ledger: 8
            bytes per trained parameter for Adam's, 4 for momentum's, for two rounds.
        second_moment_floor: γ′ of `adam-bc`: the smallest second moment after the noise is
            subtracted. Absent: a tenth of the noise variance.
        momentum: Momentum of SGD.
        weight_decay: Decoupled in AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); an L2 term
            in SGD.
        schedule: `constant`, or `warmup-linear`: a linear rise over `warmup_steps`, then a linear
            fall to 0 at the study's end. `warmup-cosine` falls along half a cosine. Steps are
            counted over all rounds.
        warmup_steps: Number of steps of the rise.
        plain_learning_rate: Peak learning rate of the comparison run without privacy. Clipping
            bounds every step, so private training allows larger rates than plain training. It is
            the only setting that such a run has for itself; tables and cards call the run untuned.
        update_dtype: Type of the values in a site's message. `bfloat16` halves its bytes; `int8`
            takes a quarter, with random rounding. Both round noised values, which costs no privacy.
        adapter_dtype: Type of the values in the global adapter that sites are sent. The coordinator
            keeps the adapter rounded to it, so that all have equal bits; this is post-processing
            and costs no privacy. Tensors that no round has trained yet are not sent, and messages
            in both directions have a header of 75 bytes, without names (`adapter.compact`). `int8`
            takes a quarter of the bytes. Absent: the whole adapter in float32, with names.
        proximal: μ of FedProx (Li et al. 2020, arXiv:1812.06127): each step also pulls towards
            the round's global adapter, by the gradient of μ/2 ‖x − x₀‖². It depends on no record,
            so it costs no privacy; with one local step it changes nothing.
        personal: Each site keeps an adapter of its own beside the shared one (MR-MTL; Liu et al.
            2022, arXiv:2206.07902): it trains its own, which `proximal` pulls towards the shared
            one, and sends the difference, so the shared adapter is the mean of all sites'.
        probe_rounds: Number of first rounds in which only the head trains, as a private warm start.
        probe_learning_rate: Peak learning rate in these rounds, on the same schedule: a head alone
            and a head with adapters learn best at different rates. The plain comparison run does
            not use it. Absent: `learning_rate`.
        public_steps: Steps that the coordinator trains on `data.public` before round 1. Absent:
            200.
        public_batch_size: Mean number of public records of such a step. Absent: 32.
        public_learning_rate: Peak learning rate of these steps, of SGD; it falls linearly to 0.
            Absent: `plain_learning_rate`.
        adversarial_radius: Adversarial training: each record's token embeddings are moved one step
            up the record's own loss before its gradient is taken, by this part of their length
            (Miyato et al. 2017, arXiv:1605.07725). Each record's move depends on that record and
            the adapter only and is inside of its clip, so ε does not change. A step takes two
            passes through the whole base, so no states of frozen layers are cached. Absent: nothing
            moves.
        padded_lengths: Lengths in tokens to which records are padded, ascending, up to
            `task.max_length`; each record gets the smallest that holds it. Fewer lengths make the
            check of a machine shorter and passes fuller, if nearly all records have about one
            length. They may follow from public texts only, never from the private records. Absent:
            8, 16, … 64, then in steps of an eighth to a quarter.
        physical_batch_tokens: A setting of the machine (`cloister.training.machine`), not of the
            recipe. None: for private passes from `cloister.training.room`, else `plain_tokens`.
        frozen_cache_gib: A setting of the machine, too.
    """

    mode: Literal["local-steps", "gradient-rounds"] = "gradient-rounds"
    expected_batch_size: Annotated[int, Between(1, MOST_RECORDS)] = field(
        default=300, metadata=called("batch batch_size per_device_train_batch_size")
    )
    local_steps: Annotated[int, Between(1, MOST_STEPS)] = field(
        default=1, metadata=called("steps num_steps max_steps local_epochs epochs num_train_epochs")
    )
    learning_rate: Rate = field(default=1.0, metadata=called("lr rate"))
    plain_learning_rate: Rate = 0.4
    optimizer: Literal["sgd", "adamw", "adam-bc"] = "sgd"
    second_moment_floor: Annotated[float, Between(1e-24, LARGE)] | None = field(
        default=None, metadata=LATER
    )
    momentum: Annotated[float, Between(0.0, 1.0, below=True)] = 0.0
    weight_decay: Annotated[float, Between(0.0, LARGE)] = 0.0
    schedule: Literal["constant", "warmup-linear", "warmup-cosine"] = "warmup-linear"
    warmup_steps: Annotated[int, Between(0, MOST_STEPS)] = 0
    update_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    adapter_dtype: Literal["float32", "bfloat16", "int8"] | None = field(
        default=None, metadata=LATER
    )
    proximal: Annotated[float, Between(0.0, LARGE)] = 0.0
    personal: bool = False
    probe_rounds: Annotated[int, Between(0, MOST_ROUNDS)] = 0
    probe_learning_rate: Rate | None = field(default=None, metadata=LATER)
    public_steps: Annotated[int, Between(1, MOST_STEPS)] | None = field(
        default=None, metadata=LATER
    )
    public_batch_size: Annotated[int, Between(1, MOST_RECORDS)] | None = field(
        default=None, metadata=LATER
    )
    public_learning_rate: Rate | None = field(default=None, metadata=LATER)
    adversarial_radius: Annotated[float, Between(1e-6, 1.0)] | None = field(
        default=None, metadata=LATER
    )
    padded_lengths: (
        Annotated[tuple[Annotated[int, Between(1, MOST_TOKENS)], ...], Items(MOST_LENGTHS)] | None
    ) = field(default=None, metadata=LATER)
    physical_batch_tokens: Annotated[int, Between(1, MOST_TOKENS)] | None = field(
        default=None, metadata=ELSEWHERE
    )
    frozen_cache_gib: Annotated[float, Between(0.0, MOST_CACHE)] = field(
        default=4.0, metadata=ELSEWHERE
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.mode == "gradient-rounds":
            self._check_gradient_rounds()
        if self.second_moment_floor is not None and self.optimizer != "adam-bc":
            raise UsageError(
                f"second_moment_floor: {self.second_moment_floor:g} given, but {self.optimizer} "
                'has none; leave it out, or set optimizer = "adam-bc"'
            )
        lengths = self.padded_lengths
        if lengths is not None and (not lengths or list(lengths) != sorted({*lengths})):
            raise UsageError(
                f"padded_lengths: {list(lengths)} given; lengths in ascending order are needed, "
                "for example [32, 64], or leave it out"
            )
        if self.personal and not self.proximal:
            raise UsageError(
                "personal: true given, but nothing pulls the sites' own adapters to the shared "
                "one; set proximal, for example 0.1"
            )

    @property
    def plain_tokens(self) -> int:
        """Most padded tokens of a pass without privacy."""
        return self.physical_batch_tokens or PLAIN_TOKENS

    def is_probe(self, round_number: int) -> bool:
        """Returns whether only the head trains in a round, counted from 1."""
        return round_number <= self.probe_rounds

    @property
    def public_step_count(self) -> int:
        """Steps on public records before round 1, where a study names such records."""
        return self.public_steps or PUBLIC_STEPS

    @property
    def public_batch(self) -> int:
        """Mean number of public records of such a step."""
        return self.public_batch_size or PUBLIC_BATCH

    @property
    def public_rate(self) -> float:
        """Peak learning rate of these steps."""
        return self.public_learning_rate or self.plain_learning_rate

    def _check_gradient_rounds(self) -> None:
        """Refuses settings of local steps: in gradient rounds the server has the optimizer."""
        needed = {
            "local_steps": 1,
            "optimizer": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "proximal": 0.0,
        }
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise UsageError(
                    f'{name}: {getattr(self, name)} given; with mode = "gradient-rounds" it is '
                    f"{value}: the server's [strategy] is the optimizer. For steps at the site set "
                    'training.mode = "local-steps"'
                )
