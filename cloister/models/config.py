"""The `[model]` and `[lora]` sections of a recipe: the base, and what is trained on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cloister.bounds import LARGE, MOST_NAME, MOST_PATH, MOST_SITES, SMALL, Between, Items, Text
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds

Train = Literal["both", "b", "b-moving", "b-kept", "alternate", "none"]
Head = Literal["linear", "lora", "frozen", "label-words"]
Method = Literal["lora", "bitfit", "ia3", "prompt", "prefix", "adalora", "bottleneck"]
VectorMode = Literal["mean", "cls", "pooler", "last"]
PoolingMode = Literal["auto", "mean", "cls", "pooler", "last", "trained"]

# The quickstart's base model, small enough for a CPU, and its weights' SHA-256.
DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"

# The value of `lora.target_modules` that means every linear module of the adapted layers.
ALL_LINEAR = "all-linear"
# Ending of files in llama.cpp's format.
GGUF = ".gguf"

# Largest rank: four times the largest in a comparison of LoRA (256: Biderman et al. 2024,
# arXiv:2405.09673). The site's `accept.max_message_bytes` bounds an adapter's size.
MOST_RANK = 1024
# Largest residual: it is exact at the modules' full rank, and the largest hidden size is 16,384
# (Llama 3.1 405B).
MOST_RESIDUAL = 16_384
# Most layers; the largest public base has 126 (Llama 3.1 405B).
MOST_LAYERS = 1000
# Llama 3.1 405B has 126 layers of 7 linear modules: 882, if each is named by its whole path.
MOST_MODULES = 1000
# Most vectors: ten times the longest prompt of Lester et al. (150), and more than Li & Liang's 300.
MOST_TOKENS = 1500
# Default number of vectors of a prompt or prefix.
TOKENS = 20

Rank = Annotated[int, Between(1, MOST_RANK)]


def base_problem(base: str) -> str | None:
    """Returns why `model.base` cannot be a base model; None: it may be one, if the hub has it.

    Args:
        base: The recipe's value.
    """
    if Path(base).expanduser().is_dir() or is_gguf(base):
        return None
    if base.endswith(GGUF):
        return f"model.base: the file {base} does not exist here"
    if base.count("/") != 1 or base.startswith(("/", ".", "~")):
        return f"model.base: {base} is neither a folder here nor a hub id (owner/name)"
    return None


def is_gguf(base: str) -> bool:
    """Returns whether `model.base` names a GGUF file on this machine."""
    return base.endswith(GGUF) and Path(base).expanduser().is_file()


# The largest hidden size is 16,384 (Llama 3.1 405B). Coordinates of final states stay below this,
# also where single ones are outliers (Sun et al. 2024, arXiv:2402.17762, find 10^3 to 10^4).
MOST_HIDDEN, LARGEST_COORDINATE = 16_384, 1e6
Coordinate = Annotated[float, Between(-LARGEST_COORDINATE, LARGEST_COORDINATE)]

# Type of a base's frozen weights.
BaseType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The `[model]` section: the frozen base, and how its vectors are read.

    Attributes:
        base: A local folder, a GGUF file or a hub id.
        sha256: SHA-256 that the base's weights (or the GGUF file) must have. Absent: not checked.
        dtype: Type of the frozen weights. Adapters are always float32.
        quantization: Load the frozen weights in 8 or 4 bits (bitsandbytes; needs a CUDA GPU).
        pooling: How the tokens' vectors become one vector for the head. `mean`: their mean. `cls`:
            the first token. `pooler`: the first token through the base's own pooler. `last`: the
            last token. `auto`: what the base's folder says (sentence-transformers' files, or a
            class in `config.json` whose training uses the pooler or first token); otherwise `last`
            for decoders and `mean` for encoders. `trained`: the rule of `auto` before format 3 of
            recipes, which chose `pooler` or `cls` for some bases that now get `mean`.
        normalize: Whether this vector is scaled to length √H (H: its number of coordinates).
            Absent: what the folder says, with `auto` and `trained`; otherwise no.
        layers: Use only this number of the base's first layers. Later layers are not computed and
            get no adapters; the base's final norm, if it has one, follows the last used layer.
            Absent: all layers. For classification: a decoder's middle layers often separate classes
            better than its last (`cloister plan --layers` compares them).
        center: Subtract the mean vector of 48 built-in English or Chinese sentences from this
            vector (`cloister.models.center`). What all texts share says nothing about their class,
            yet fills most of a clipped gradient. With a head that starts at zero, plain training
            can reach the same scores; private training often learns much faster. `public`: the mean
            vector of the records of `data.public`. `none`: nothing is subtracted; it is read as an
            absent value. Absent: nothing, but see `training.learning_rate`.
        center_values: That mean vector, which the coordinator fills in, so that sites need no
            public records.
    """

    base: Annotated[str, Text(MOST_PATH, least=1)] = field(
        default=DEFAULT_BASE,
        metadata=called("name model path base_model model_name model_name_or_path checkpoint"),
    )
    sha256: Annotated[str, Text(64)] | None = None
    dtype: BaseType = "float32"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    pooling: PoolingMode = "auto"
    normalize: bool | None = None
    layers: Annotated[int, Between(1, MOST_LAYERS)] | None = field(
        default=None, metadata={**LATER, **called("num_layers num_hidden_layers layer")}
    )
    center: Literal["none", "english", "chinese", "public"] | None = field(
        default=None, metadata=LATER
    )
    center_values: Annotated[tuple[Coordinate, ...], Items(MOST_HIDDEN)] | None = field(
        default=None, metadata=LATER
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.center == "none":  # so that documents and digests know one way to say it
            object.__setattr__(self, "center", None)
        if self.center_values is not None and self.center != "public":
            raise UsageError(
                'center_values: given without center = "public", which they are of; leave them out'
            )
        if self.sha256 is not None and (
            len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")
        ):
            raise UsageError("sha256: not valid; 64 lower-case hexadecimal digits are needed")

    @property
    def center_in_words(self) -> str | None:
        """What is subtracted from every text's vector; None: nothing is."""
        if self.center is None:
            return None
        if self.center == "public":
            return 'the mean vector of data.public is subtracted (model.center = "public")'
        return (
            f"the mean vector of built-in {self.center.title()} sentences is subtracted "
            f'(model.center = "{self.center}")'
        )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What is trained on top of the base.

    Attributes:
        r: Rank of the adapters.
        ranks: One rank for each site, in the order of the sites' names, each at most `r`; for
            strategies that mix ranks (`flexlora`, `flora`). A site of rank k trains and sends only
            the first k columns of B and rows of A. Empty: every site has rank `r`.
        rank_pattern: Ranks that replace `r` for some modules, each as "name=rank". A name stands
            for every adapted module whose name is equal to it or ends with it after a dot
            ("q_proj=16", "layers.0.mlp.down_proj=2"). The first matching entry counts, as in peft.
            Absent: none.
        rslora: Scale adapters by alpha / √r instead of alpha / r, so that a larger rank does not
            make them smaller (rsLoRA; Kalajdzievski 2023, arXiv:2312.03732). Absent: false.
        alpha: Adapters are scaled by alpha / r, also at a site with a smaller rank. Head and
            adapters share one clip bound and one noise, so under privacy the learning rate cannot
            replace alpha: it sets how much of a clipped gradient belongs to the adapters.
        target_modules: Names of the linear modules that get an adapter. Empty: the query and value
            projections of attention, by architecture. "all-linear" as the only name: every linear
            module of the adapted layers through which each text passes once.
        top_layers: Only this number of last layers get adapters; 0: all layers. Every noised
            parameter adds noise to the update, so the default is the last layer only.
        train: Which parts of the adapters are trained. An adapter adds B·A to a module's weights;
            A starts from the seed, B at zero. The head is always trained, unless `head` is
            `frozen`. `b`: only B; A keeps its start (FFA-LoRA; Sun et al. 2024, arXiv:2403.12313).
            `both`: A and B. A site then sends about twice as many bytes, and the mean of the sites'
            products B·A differs from the product of the means. `alternate`: B in odd rounds, A in
            even rounds (RoLoRA; Chen et al. 2024, arXiv:2409.02346). `b-moving`: only B, while the
            coordinator changes A between rounds and sends it to the sites; needs a strategy that
            does so (`fedsvd`). `b-kept`: A and B are trained and only A is sent; each site keeps
            its own B (FedSA-LoRA; Guo et al. 2024, arXiv:2410.01463). `none`: there is no adapter,
            and only the head is trained (a linear probe).
        residual: Rank of a second pair of matrices beside each adapter, in which `fedex` and
            `flora` keep the part of the mean that an adapter of rank `r` cannot hold. Sites receive
            it and do not train it; it is exported with the adapter. It is exact if it has the full
            rank of the adapted modules. 0: none.
        head: `linear`: full rank, starts at zero. `lora`: a low-rank step from a fixed random
            start. `frozen`: a fixed random start. `label-words`: full rank; each label starts at
            the mean of the rows of a decoder's output embedding for the label's words. With a
            `task.prompt` that asks for the label, the untrained head then answers as the language
            model would, with logits scaled as `model.normalize` says. Absent: `linear` for
            classification, `frozen` for a causal LM, which uses the base's own head.
        use_dora: Use weight-decomposed adapters (DoRA). Only without privacy, because their
            per-record gradients are not exact.
        method: The kind of adapter. Absent: `lora`, as described above. `bitfit`: a bias vector
            added to the output of each module, starting at zero, scaled by alpha / r (BitFit; Ben
            Zaken et al. 2022, arXiv:2106.10199); biases of norms are not trained. `ia3`: vectors,
            starting at one, that scale the outputs of keys and values and the inputs of
            feed-forward layers (IA³; Liu et al. 2022, arXiv:2205.05638). `prompt`: vectors before
            the embeddings of a text (prompt tuning; Lester et al. 2021, arXiv:2104.08691).
            `prefix`: keys and values before those of each layer (prefix tuning; Li & Liang 2021,
            arXiv:2101.00190). `prompt` and `prefix` act on all layers; `top_layers` has no effect
            on them. With a method other than `lora`, `train` must be `b` or `both`, and either
            trains the whole adapter. `adalora` and `bottleneck` are refused, with the reason.
        tokens: Number of vectors of `prompt` and `prefix`; a record may then have this many tokens
            less. Absent: 20; with more, Lester et al. found little gain (section 3.2).
        freeze: Tensors that are not trained and not sent, by patterns of their names in the base
            (`*` stands for any text): "encoder.layer.0.*", "*.query.*", "head.bias". Absent: none.
    """

    r: Rank = field(default=4, metadata=called("rank lora_r lora_rank"))
    ranks: Annotated[tuple[Rank, ...], Items(MOST_SITES)] = ()
    rank_pattern: (
        Annotated[tuple[Annotated[str, Text(MOST_NAME, least=1)], ...], Items(MOST_MODULES)] | None
    ) = field(default=None, metadata=LATER)
    rslora: bool | None = field(
        default=None, metadata={**LATER, **called("use_rslora rank_stabilized")}
    )
    alpha: Annotated[float, Between(SMALL, LARGE)] = field(
        default=8.0, metadata=called("lora_alpha scaling")
    )
    target_modules: Annotated[
        tuple[Annotated[str, Text(MOST_NAME, least=1)], ...], Items(MOST_MODULES)
    ] = ()
    top_layers: Annotated[int, Between(0, MOST_LAYERS)] = field(
        default=1, metadata=called("layers last_layers layers_to_transform")
    )
    train: Train = field(default="b", metadata=called("trainable factors trained"))
    residual: Annotated[int, Between(0, MOST_RESIDUAL)] = 0
    head: Head | None = None
    use_dora: bool = False
    method: Method | None = field(
        default=None, metadata={**LATER, **called("peft peft_type adapter kind")}
    )
    tokens: Annotated[int, Between(1, MOST_TOKENS)] | None = field(
        default=None, metadata={**LATER, **called("num_virtual_tokens virtual_tokens")}
    )
    freeze: (
        Annotated[tuple[Annotated[str, Text(MOST_NAME, least=1)], ...], Items(MOST_MODULES)] | None
    ) = field(default=None, metadata={**LATER, **called("frozen exclude exclude_modules")})

    @property
    def is_lora(self) -> bool:
        """Returns whether adapters are products of two factors."""
        return self.method in (None, "lora")

    @property
    def is_prompt(self) -> bool:
        """Returns whether vectors are put before a text, so that no module is adapted."""
        return self.method in ("prompt", "prefix")

    @property
    def virtual_tokens(self) -> int:
        """Returns the number of vectors before a text."""
        return (self.tokens or TOKENS) if self.is_prompt else 0

    def __post_init__(self) -> None:
        check_bounds(self)
        self._check_method()
        invalid = [rank for rank in self.ranks if not 1 <= rank <= self.r]
        if invalid:
            raise UsageError(f"ranks: {invalid[0]} given; 1 to lora.r = {self.r} is needed")
        self._check_pattern()
        if self.residual and self.use_dora:
            raise UsageError(
                "residual: not possible with DoRA, which adds no product; set use_dora=false"
            )
        if self.train == "none" and self.head == "frozen":
            raise UsageError('train, head: "none" and "frozen" together leave nothing to train')

    def _check_method(self) -> None:
        """Refuses options of LoRA with a method that is not LoRA."""
        if self.tokens and not self.is_prompt:
            raise UsageError('tokens: for method "prompt" or "prefix" only; leave it out')
        if self.is_prompt and self.target_modules:
            raise UsageError(
                f"target_modules: given for {self.method}, which adapts no module; leave it out"
            )
        if self.is_lora:
            return
        if self.method == "adalora":
            raise UsageError(
                'method: "adalora" is not supported: it moves rank between modules by gradients '
                "without noise, which no ledger would charge, and each site would choose different "
                "ranks, which cannot be averaged; leave it out, and set ranks by name with "
                "rank_pattern"
            )
        if self.method == "bottleneck":
            raise UsageError(
                'method: "bottleneck" given; peft and transformers cannot load layers between a '
                "base's own layers (Houlsby et al. 2019), so the adapter would work only with "
                "Cloister; leave it out: lora on up_proj and down_proj (or the base's names for "
                "them) adapts the same place with as many parameters"
            )
        if self.train not in ("b", "both"):
            raise UsageError(
                f'train: "{self.train}" given, which names factors of LoRA that {self.method} does '
                'not have; set "both", or leave method out'
            )
        for name in ("ranks", "rank_pattern", "rslora", "residual", "use_dora"):
            if getattr(self, name):
                raise UsageError(
                    f"{name}: given for {self.method}, but is for LoRA only; leave it or method out"
                )

    def _check_pattern(self) -> None:
        pattern = self.ranks_by_module()
        for field_name in ("ranks", "residual"):
            if pattern and getattr(self, field_name):
                raise UsageError(
                    f"rank_pattern: cannot be combined with lora.{field_name}; leave one of "
                    "them out"
                )

    def ranks_by_module(self) -> dict[str, int]:
        """Returns `rank_pattern` in peft's form: rank by the name, or the end of the name, of a
        module.

        Raises:
            UsageError: An item is not of the form name=rank.
        """
        found: dict[str, int] = {}
        for line in self.rank_pattern or ():
            name, _, rank = (part.strip() for part in line.partition("="))
            if not re.fullmatch(r"\w+(\.\w+)*", name) or not re.fullmatch(r"[1-9]\d{0,3}", rank):
                raise UsageError(
                    f"rank_pattern: {line!r} given; a module's name, = and a rank are needed, as "
                    'in "q_proj=16"'
                )
            if int(rank) > MOST_RANK or name in found:
                raise UsageError(
                    f"rank_pattern: {line!r} given; a rank of at most {MOST_RANK}, and each name "
                    "only once, are needed"
                )
            found[name] = int(rank)
        return found
