"""Joins base, adapters and head into one network with deterministic forward passes.

Shapes: B records, T tokens, H hidden units, C outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloister.models.apart import TwoTexts
from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.head_inputs import HeadInputs
from cloister.models.layers import without_cache
from cloister.models.pooling import Pooling
from cloister.models.prefix import FrozenPrefix
from cloister.models.token_head import TokenHead, find_token_head, hidden_states
from cloister.seeds import child_seed
from cloister.tasks.losses import token_losses
from cloister.tasks.task import Batch

# Standard deviation of a head's initial values, as for classifiers in transformers
# (`initializer_range` of BERT and its descendants).
HEAD_DEVIATION = 0.02

# In a fixed shape the number of a head's rows is a multiple of this: measured, MKL's float32
# kernels treat all rows alike from 4 rows on with one thread, and for multiples of 8 with two.
HEAD_ROWS = 8


class LowRankHead(nn.Module):
    """A head that learns a step of rank r from fixed random weights: W = W₀ + B·A."""

    def __init__(self, hidden: int, outputs: int, r: int) -> None:
        super().__init__()
        self.start = nn.Linear(hidden, outputs).requires_grad_(False)
        self.down = nn.Linear(hidden, r, bias=False)
        self.up = nn.Linear(r, outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits [..., C] of features [..., H]."""
        start: Tensor = self.start(features)
        step: Tensor = self.up(self.down(features))
        return start + step

    def merged(self) -> tuple[Tensor, Tensor]:
        """Returns weight [C, H] and bias [C] of the linear layer that computes the same."""
        return self.start.weight + self.up.weight @ self.down.weight, self.start.bias


class Network(nn.Module):
    """A frozen base with its adapters, and a head if the task needs one.

    Args:
        backbone: The base with LoRA attached.
        head: From hidden states to C outputs; None for a causal LM.
        pooling: How a sequence becomes one vector; None: every token is classified.

    Attributes:
        is_float32: Whether the whole base computes in float32: neither shorter floats nor
            quantized.
        center: The vector that is subtracted from a sequence's before the head, [H]; None: nothing.
        two: How two texts are encoded separately and compared; None: a row is one text, or two
            texts that are read together.
        items: The vectors of the public items, by which the head's output is multiplied, [C, H];
            None: the head's outputs are the logits.
        prefix: The cache of its frozen layers' states; None: they are not cached.
        head_inputs: The cache of what its head reads, for passes in which only the head trains;
            None: it is computed each time.
        checkpoints: Its layers with recomputed activations; None: activations are kept.
        is_prompted: Whether vectors are put before each text, so that all layers are adapted.
        virtual_tokens: The number of these vectors; each uses one of the base's positions.
        leading: The number of output states before a text's own.
        adversarial_radius: How far training moves a record's embeddings up its loss, as a part of
            their length (`cloister.training.adversary`); 0: they stay as they are.
        unseen: A context that hides a pass from per-record hooks.

    Guarantees:
        Everything stays in evaluation mode except the modules that own trainable parameters
        (Opacus' hooks need that), so no dropout runs and equal inputs give equal gradients.
    """

    def __init__(
        self,
        backbone: PeftModel,
        head: nn.Module | None,
        pooling: Pooling | None,
        two: TwoTexts | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.two: TwoTexts | None
        self.register_module("two", two)
        self.pooling = pooling
        self.center: Tensor | None
        self.register_buffer("center", None, persistent=False)
        self.items: Tensor | None
        self.register_buffer("items", None, persistent=False)
        self.prefix: FrozenPrefix | None = None
        self.head_inputs: HeadInputs | None = None
        self.checkpoints: CheckpointedLayers | None = None
        self.adversarial_radius = 0.0
        self.unseen: Callable[[], AbstractContextManager[None]] = nullcontext
        self._token_head: TokenHead | Literal[False] | None = False  # not looked for yet
        config: Any = backbone.peft_config["default"]
        self.is_prompted = bool(config.is_prompt_learning)
        self.virtual_tokens = int(config.num_virtual_tokens) if self.is_prompted else 0
        # A prefix is inside of the layers' attention, so the output has no states of it.
        self.leading = 0 if config.peft_type == "PREFIX_TUNING" else self.virtual_tokens
        self.is_float32 = all(p.dtype == torch.float32 for p in backbone.parameters())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        second: Tensor | None = None,
        *,
        multiple: int = 1,
    ) -> Tensor:
        """Returns logits [B, C] of sequences, or [B, T, C] of tokens.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            token_type_ids: [B, T], to which of two texts each token belongs; None: all to one.
            second: [B, T], 1 at tokens of a second text that is read apart; None: there is none.
            multiple: The rows of a sequence head are padded with zeros to a multiple of it. The
                head's matrix product has one row per record, and kernels for few rows sum in
                another order.
        """
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **({} if token_type_ids is None else {"token_type_ids": token_type_ids}),
            **({} if second is None else {"second": second}),
            **without_cache(self.backbone),
        )
        if self.head is None:
            logits: Tensor = output.logits
            return logits[:, self.leading :]
        return self._scores(self._features(output, attention_mask, second), multiple)

    def _scores(self, features: Tensor, multiple: int) -> Tensor:
        """Returns the logits of what `_features` returned; see `forward`."""
        assert self.head is not None
        if self.center is not None:
            features = features - self.center
        rows = len(features)
        if features.dim() == 2 and rows % multiple:
            features = F.pad(features, (0, 0, 0, multiple - rows % multiple))
        scores: Tensor = self.head(features)
        if self.items is not None:
            scores = scores @ self.items.T
        return scores[:rows]

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the base's inputs from a batch, on the network's device, by `forward`'s names.

        Token types are left out if the base has no embedding for them.
        """
        read = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self.two is not None:
            none = torch.zeros_like(batch.input_ids)
            read["second"] = none if batch.segments is None else batch.segments
        elif batch.segments is not None and self.tells_segments:
            read["token_type_ids"] = batch.segments
        return {name: tensor.to(self.device) for name, tensor in read.items()}

    def pooled(self, batch: Batch) -> Tensor:
        """Returns sequences' vectors from the base, [B, H] in float32, without a centre."""
        inputs = self.inputs(batch)
        output = self.backbone(**inputs, **without_cache(self.backbone))
        return self._features(output, inputs["attention_mask"], inputs.get("second"))

    def computed_head_inputs(self, batch: Batch) -> Tensor:
        """Returns what the head reads, from cached states of frozen layers where some are skipped.

        After the last layer states would take more memory than what the head reads of them.
        """
        if self.prefix is None or self.prefix.skips_all:
            return self.pooled(batch)
        states = self.prefix.states(self.inputs(batch), batch.examples, batch.shape)
        with self.prefix.skipping(states):
            return self.pooled(batch)

    def _features(
        self, output: Any, attention_mask: Tensor, second: Tensor | None = None
    ) -> Tensor:
        """Returns the head's input in float32: [B, H] for sequences, [B, T, H] for tokens."""
        hidden: Tensor = output.last_hidden_state
        if self.leading:
            hidden = output.last_hidden_state = hidden[:, self.leading :]
        if self.pooling is not None and self.two is not None:
            none = torch.zeros_like(attention_mask)
            second = none if second is None else second
            compared: Tensor = self.two(hidden, attention_mask, second, self.pooling)
            return compared
        if self.pooling is not None:
            hidden = self.pooling(output, attention_mask)
        return hidden.to(torch.float32)

    def logits(self, batch: Batch) -> Tensor:
        """Returns logits of a batch on the network's device; uses what is cached of its records.

        Guarantees:
            In a fixed shape, cached states equal those that the same shape computes: the result
            does not show whether they were cached.
        """
        multiple = 1 if batch.shape is None else HEAD_ROWS
        # Below float32 a state depends visibly on the batch that computed it, so scores would
        # depend on what was scored before; in a fixed shape they do not.
        may_cache = self.is_float32 or batch.shape is not None
        if may_cache and self.head_inputs is not None and self.head_inputs.can_serve():
            return self._scores(self.head_inputs.of(batch, self.computed_head_inputs), multiple)
        inputs = self.inputs(batch)
        if self.prefix is None or not may_cache:
            return self(**inputs, multiple=multiple)  # type: ignore[no-any-return]
        with self.prefix.skipping(self.prefix.states(inputs, batch.examples, batch.shape)):
            return self(**inputs, multiple=multiple)  # type: ignore[no-any-return]

    def token_losses(self, batch: Batch) -> Tensor:
        """Returns a causal LM's cross-entropy of each next token in float32, 0 if it is not learnt.

        Returns:
            [B, T - 1], on the network's device. If the base allows it, logits are computed only for
            tokens that are learnt, some rows at a time (`models.token_head`).
        """
        target = batch.target.to(self.device)
        head = self.token_head
        if head is None:
            return token_losses(self.logits(batch)[:, :-1], target[:, 1:])
        states = hidden_states(lambda: self.logits(batch), head)
        return head.losses(states[:, self.leading :], target)

    @contextmanager
    def apart(self, *, keeping: bool = True) -> Iterator[None]:
        """Enters a context without anything cached of records; what it caches is then dropped.

        Args:
            keeping: Whether anything is cached until then.
        """
        with ExitStack() as entered:
            for cache in (self.prefix, self.head_inputs):
                if cache is not None:
                    entered.enter_context(cache.apart(keeping=keeping))
            yield

    def share_caches(self, processes: int) -> None:
        """Lowers the caches' limit to that of one of so many forks of this process."""
        for cache in (self.prefix, self.head_inputs):
            if cache is not None:
                cache.share(processes)

    @property
    def is_apart(self) -> bool:
        """Returns whether it is inside of `apart`."""
        return any(c is not None and c.is_apart for c in (self.prefix, self.head_inputs))

    @property
    def token_head(self) -> TokenHead | None:
        """Returns the head that computes a causal LM's losses by rows; None: not possible."""
        if self._token_head is False:
            self._token_head = find_token_head(self, self.base, self.device, self.leading)
        return self._token_head

    @property
    def tells_segments(self) -> bool:
        """Returns whether the base has token types, for two texts that are read together."""
        kinds = int(getattr(self.base.config, "type_vocab_size", 0) or 0)
        return kinds > 1 and "token_type_ids" in inspect.signature(self.base.forward).parameters

    @property
    def vocabulary(self) -> int:
        """Returns the number of token ids for which the base has embeddings."""
        embeddings: Any = self.backbone.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    @property
    def base(self) -> PreTrainedModel:
        """Returns the base itself, with the adapters attached."""
        model = self.backbone.get_base_model()
        assert isinstance(model, PreTrainedModel)
        return model

    @property
    def adapted_modules(self) -> tuple[str, ...] | None:
        """Returns the names of the adapted modules, as peft has them; None: there are none."""
        config: Any = self.backbone.peft_config["default"]
        if self.is_prompted:
            return None
        return tuple(sorted(config.target_modules))

    @property
    def device(self) -> torch.device:
        """Returns the device that holds the parameters."""
        return next(self.parameters()).device

    def named_modules(
        self,
        memo: set[nn.Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yields the same as torch's method, in the same order, without a generator for each level.

        Every training step lists the parameters, which with torch's method takes longer than the
        gradients of a base with few layers.
        """
        seen = set() if memo is None else memo
        waiting: list[tuple[str, nn.Module]] = [(prefix, self)]
        while waiting:
            name, module = waiting.pop()
            if remove_duplicate:
                if module in seen:
                    continue
                seen.add(module)
            yield name, module
            start = name and f"{name}."
            below = [(start + own, m) for own, m in module._modules.items() if m is not None]
            waiting += reversed(below)

    def set_trained(self, names: frozenset[str]) -> None:
        """Trains exactly these parameters (names as in `adapter_parameters`).

        Raises:
            KeyError: A name is not one of the network's.
        """
        self.eval()
        parameters = {adapter_name(n): p for n, p in self.named_parameters()}
        for name in names:
            parameters[name]
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in names)
        for module in self.modules():
            if any(p.requires_grad for p in module.parameters(recurse=False)):
                module.training = True


def adapter_name(parameter_name: str) -> str:
    """Returns a parameter's name in messages between sites: without peft's name of the adapter."""
    return parameter_name.replace(".default.", ".").removesuffix(".default")


def trained_parameters(network: Network) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields name and tensor of each parameter that is trained now, in order of names."""
    named = {adapter_name(n): p for n, p in network.named_parameters() if p.requires_grad}
    yield from sorted(named.items())


def make_head(
    kind: str, hidden: int, outputs: int, r: int, seed: int, rows: Tensor | None = None
) -> nn.Module:
    """Makes a head with initial values: zero or the labels' words at full rank, else random.

    Zeros leave nothing random to unlearn. A frozen or low-rank head needs initial values that
    distinguish the classes: normal with standard deviation 0.02, biases zero.

    Args:
        kind: `linear`, `lora`, `frozen` or `label-words`.
        hidden: H.
        outputs: C.
        r: Rank of a low-rank step.
        seed: The study's seed.
        rows: The weight's initial values, float32 [C, H], if they are neither random nor zero.
    """
    head: nn.Module
    head = LowRankHead(hidden, outputs, r) if kind == "lora" else nn.Linear(hidden, outputs)
    generator = torch.Generator().manual_seed(child_seed(seed, "head"))
    with torch.no_grad():
        for name, parameter in sorted(head.named_parameters()):
            if rows is not None and name in ("weight", "start.weight"):
                parameter.copy_(rows)
            elif parameter.dim() == 1 or name == "up.weight" or kind == "linear":
                parameter.zero_()
            else:
                parameter.normal_(0.0, HEAD_DEVIATION, generator=generator)
    return head
