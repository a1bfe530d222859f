"""Base, adapters and head as one network with deterministic forward passes.

Shapes: B records, T tokens, H hidden units, C outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.layers import without_cache
from cloister.models.pooling import Pooling
from cloister.models.prefix import FrozenPrefix
from cloister.models.token_head import TokenHead, find_token_head, hidden_states
from cloister.seeds import child_seed
from cloister.tasks.losses import token_losses
from cloister.tasks.task import Batch

# Standard deviation of a head's start, as transformers starts its classifiers
# (`initializer_range` of BERT and its descendants).
HEAD_DEVIATION = 0.02

# In a fixed shape a head's rows are a multiple of this: MKL's float32 kernels were measured to
# treat all rows alike from 4 on with one thread, and in multiples of 8 with two.
HEAD_ROWS = 8


class LowRankHead(nn.Module):
    """A head that learns a step of rank r from a fixed random start: W = W₀ + B·A."""

    def __init__(self, hidden: int, outputs: int, r: int) -> None:
        super().__init__()
        self.start = nn.Linear(hidden, outputs).requires_grad_(False)
        self.down = nn.Linear(hidden, r, bias=False)
        self.up = nn.Linear(r, outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [..., C] of features [..., H]."""
        start: Tensor = self.start(features)
        step: Tensor = self.up(self.down(features))
        return start + step

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight [C, H] and bias [C] of the equal linear layer."""
        return self.start.weight + self.up.weight @ self.down.weight, self.start.bias


class Network(nn.Module):
    """A frozen base with its adapters, and a head where the task needs one.

    Args:
        backbone: The base with LoRA attached.
        head: From hidden states to C outputs; None for a causal LM.
        pooling: How a sequence becomes one vector; None where every token is classified.

    Attributes:
        is_float32: Whether all of the base computes in float32: neither shorter floats nor
            quantized.
        center: What is taken off a sequence's vector before the head, [H]; None: nothing.
        items: Of public items, the vectors with which the head's output is multiplied, [C, H];
            None: the head's outputs are the logits.
        prefix: The states of its frozen layers, where they are kept.
        checkpoints: Its layers, where their activations are computed again and not kept.
        is_prompted: Whether vectors stand before each text, so that all layers are adapted.
        virtual_tokens: How many they are; each takes one of the base's positions.
        leading: How many states the base gives before a text's own.

    Guarantees:
        Everything stays in evaluation mode but the modules that own trainable parameters (Opacus'
        hooks ask for that), so no dropout runs and equal inputs give equal gradients.
    """

    def __init__(
        self, backbone: PeftModel, head: nn.Module | None, pooling: Pooling | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.pooling = pooling
        self.center: Tensor | None
        self.register_buffer("center", None, persistent=False)
        self.items: Tensor | None
        self.register_buffer("items", None, persistent=False)
        self.prefix: FrozenPrefix | None = None
        self.checkpoints: CheckpointedLayers | None = None
        self._token_head: TokenHead | Literal[False] | None = False  # not looked for yet
        config: Any = backbone.peft_config["default"]
        self.is_prompted = bool(config.is_prompt_learning)
        self.virtual_tokens = int(config.num_virtual_tokens) if self.is_prompted else 0
        # A prefix is in the layers' attention, and no state of its own comes out.
        self.leading = 0 if config.peft_type == "PREFIX_TUNING" else self.virtual_tokens
        self.is_float32 = all(p.dtype == torch.float32 for p in backbone.parameters())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        multiple: int = 1,
    ) -> Tensor:
        """Logits [B, C] of sequences, or [B, T, C] of tokens.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T].
            token_type_ids: [B, T], which of two texts each token is of; None: all of one.
            multiple: Of it are the rows that a head of sequences computes; zeros fill them up. Its
                matrix product has a row a record, and kernels for few rows sum in another order.
        """
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **({} if token_type_ids is None else {"token_type_ids": token_type_ids}),
            **without_cache(self.backbone),
        )
        if self.head is None:
            logits: Tensor = output.logits
            return logits[:, self.leading :]
        features = self._features(output, attention_mask)
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
        """What the base reads of a batch, on the network's device, by the names of `forward`.

        Which text a token is of is left out where the base has no embedding for it.
        """
        read = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.segments is not None and self.tells_segments:
            read["token_type_ids"] = batch.segments
        return {name: tensor.to(self.device) for name, tensor in read.items()}

    def pooled(self, batch: Batch) -> Tensor:
        """Vectors of sequences as the base gives them, [B, H] in float32, before any centre."""
        inputs = self.inputs(batch)
        output = self.backbone(**inputs, **without_cache(self.backbone))
        return self._features(output, inputs["attention_mask"])

    def _features(self, output: Any, attention_mask: Tensor) -> Tensor:
        """What the head reads: [B, H] of sequences, [B, T, H] of tokens, in float32."""
        hidden: Tensor = output.last_hidden_state
        if self.leading:
            hidden = output.last_hidden_state = hidden[:, self.leading :]
        if self.pooling is not None:
            hidden = self.pooling(output, attention_mask)
        return hidden.to(torch.float32)

    def logits(self, batch: Batch) -> Tensor:
        """Logits of a batch on the network's device, past the frozen layers where they are kept.

        Guarantees:
            In a fixed shape, kept states are those that the same shape computes: nothing shows
            whether they were kept.
        """
        inputs = self.inputs(batch)
        multiple = 1 if batch.shape is None else HEAD_ROWS
        # Below float32 a state depends visibly on the batch that computed it, so that scores would
        # change with what was scored before; in a fixed shape it does not.
        if self.prefix is None or not (self.is_float32 or batch.shape is not None):
            return self(**inputs, multiple=multiple)  # type: ignore[no-any-return]
        with self.prefix.skipping(self.prefix.states(inputs, batch.examples, batch.shape)):
            return self(**inputs, multiple=multiple)  # type: ignore[no-any-return]

    def token_losses(self, batch: Batch) -> Tensor:
        """A causal LM's cross-entropy of each next token in float32, 0 where nothing is learnt.

        Returns:
            [B, T - 1], on the network's device. Logits are computed where a token is learnt alone,
            some rows at a time, where the base allows it (`models.token_head`).
        """
        target = batch.target.to(self.device)
        head = self.token_head
        if head is None:
            return token_losses(self.logits(batch)[:, :-1], target[:, 1:])
        states = hidden_states(lambda: self.logits(batch), head)
        return head.losses(states[:, self.leading :], target)

    @property
    def token_head(self) -> TokenHead | None:
        """How a causal LM's losses are computed by rows; None where they cannot be."""
        if self._token_head is False:
            self._token_head = find_token_head(self, self.base, self.device, self.leading)
        return self._token_head

    @property
    def tells_segments(self) -> bool:
        """Whether the base has an embedding for each of two texts that are read together."""
        kinds = int(getattr(self.base.config, "type_vocab_size", 0) or 0)
        return kinds > 1 and "token_type_ids" in inspect.signature(self.base.forward).parameters

    @property
    def vocabulary(self) -> int:
        """How many token ids the base has embeddings for."""
        embeddings: Any = self.backbone.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    @property
    def base(self) -> PreTrainedModel:
        """The base itself, with the adapters in place."""
        model = self.backbone.get_base_model()
        assert isinstance(model, PreTrainedModel)
        return model

    @property
    def adapted_modules(self) -> tuple[str, ...] | None:
        """Names of the modules that get adapters, as peft was given them; None where none does."""
        config: Any = self.backbone.peft_config["default"]
        if self.is_prompted:
            return None
        return tuple(sorted(config.target_modules))

    @property
    def device(self) -> torch.device:
        """The device that holds the parameters."""
        return next(self.parameters()).device

    def named_modules(
        self,
        memo: set[nn.Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yields what torch's own yields, in its order, without a generator for each level.

        Every step of training asks for the parameters, which costs a base of few layers more than
        its gradients.
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
    """Returns a parameter's name in messages: without peft's name of the active adapter."""
    return parameter_name.replace(".default.", ".").removesuffix(".default")


def trained_parameters(network: Network) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the name and tensor of each parameter that is trained now, in order of names."""
    named = {adapter_name(n): p for n, p in network.named_parameters() if p.requires_grad}
    yield from sorted(named.items())


def make_head(
    kind: str, hidden: int, outputs: int, r: int, seed: int, rows: Tensor | None = None
) -> nn.Module:
    """Makes a head: zero or the labels' words where it trains at full rank, else seeded values.

    A zero start leaves nothing random to unlearn. A frozen or low-rank head needs
    a start that tells the classes apart: normal with deviation 0.02, biases zero.

    Args:
        kind: `linear`, `lora`, `frozen` or `label-words`.
        hidden: H.
        outputs: C.
        r: Rank of a low-rank step.
        seed: The study's.
        rows: The weight's start, float32 [C, H], where it is not random or zero.
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
