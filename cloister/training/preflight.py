"""Checks before training that every record's gradient is exact, else refuses the model by name.

Private training depends on per-record gradients. If a module computes them wrongly, or one record
changes another's, clipping bounds nothing and the claimed ε is false. So a study starts only after
these checks on the network that will train:

0. each trained module is called once for each batch, with the records as its input's rows;
1. if frozen layers are cached and skipped, the logits stay the same;
2. if activations are computed again, gradients have the same bits as with kept activations;
3. each trained parameter's per-record gradient equals that of the record alone, by plain autograd;
4. frozen parameters get no gradient;
5. one noiseless step moves every trained tensor, and no other.

`training.proof` shows that other records do not change any bit of a record's gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cloister.errors import PreflightError
from cloister.models.network import Network, adapter_name, trained_parameters
from cloister.models.owners import trained_owners
from cloister.models.prefix_check import TOLERANCE, coarsest, prefix_problem
from cloister.models.token_head import hidden_states
from cloister.privacy.products import Gradient, of_unit, whole
from cloister.seeds import child_seed
from cloister.tasks.chat import CausalChat
from cloister.tasks.task import Example, Task
from cloister.training.gradients import per_record_hooks
from cloister.training.record_losses import trained_losses
from cloister.training.unchanged import checksums, restored

# B starts at zero, where A's gradient vanishes; the check runs from a start moved by this much,
# the deviation with which transformers starts weights.
PERTURBATION = 0.02

# Tokens of the records whose activations are kept for comparison: enough for every kernel's inner
# loops, and little beside a base (2 records of a 7B base in float32: 1 GB).
KEPT_TOKENS = 64

# Exceptions of networks whose per-record gradients cannot be computed.
_CANNOT = (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError)
# Modules whose output for one record depends on the others or on earlier batches.
_BATCH_DEPENDENT = (nn.modules.batchnorm._BatchNorm,)


def preflight(network: Network, task: Task, examples: Sequence[Example]) -> None:
    """Checks a network before its first private step, and leaves it unchanged.

    Args:
        network: The network, with its trained names set.
        task: The study's task.
        examples: At least two records of different length, where possible.

    Raises:
        PreflightError: A check failed; the message has the parameter's or module's name and the
            remedy.
    """
    refuse_known(network)
    trained = dict(trained_parameters(network))
    if not trained:
        raise PreflightError("preflight: nothing is trained; check the [lora] section")
    with restored(network):
        _perturb(trained)
        _check_calls(network, task, examples[:2])
        _check_prefix(network, task, examples[:2])
        _check_again(network, task, examples[:2], trained)
        _check_gradients(network, task, examples[:2], trained)
        _check_step(network, task, examples[:2])


def refuse_known(network: Network) -> None:
    """Refuses by name modules that are known not to have exact per-record gradients.

    Raises:
        PreflightError: DoRA, adapters on embeddings, batch normalisation; a device without
            float64.
    """
    if network.device.type == "mps":
        raise PreflightError(
            "preflight: mps has no float64, which the sums of clipped gradients need; set "
            'machine.device = "cpu", or train without privacy (Apple GPUs are untested)'
        )
    if network.adversarial_radius and network.prefix is not None:
        raise PreflightError(
            "preflight: training.adversarial_radius moves the embeddings, but states of frozen "
            "layers are cached, which follow from embeddings that stay; set "
            "machine.frozen_cache_gib = 0, or leave the radius out"
        )
    for name, _ in trained_parameters(network):
        if "lora_magnitude_vector" in name:
            raise PreflightError(
                f"preflight: {name} is a DoRA magnitude, whose per-record gradient is not exact: "
                "it divides by the length of W + B·A, which no layer computes from a record; set "
                "lora.use_dora = false, or train without privacy"
            )
        if "lora_embedding" in name:
            raise PreflightError(
                f"preflight: {name} is LoRA on an embedding, whose per-record gradient is not "
                "exact; leave embeddings out of lora.target_modules"
            )
    for name, module in network.named_modules():
        if isinstance(module, _BATCH_DEPENDENT):
            raise PreflightError(
                f"preflight: {name} is a batch normalisation, in which every record changes every "
                "other's gradient; choose a base model without it"
            )


def _perturb(trained: dict[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in trained.items():
            generator = torch.Generator().manual_seed(child_seed(0, "preflight", name))
            noise = torch.randn(parameter.shape, generator=generator) * PERTURBATION
            parameter.add_(noise.to(parameter))


def _check_calls(network: Network, task: Task, examples: Sequence[Example]) -> None:
    """Refuses modules that a forward pass calls twice, or with rows that are not the records.

    Their per-record gradients would mix records or several calls: DeBERTa puts relative positions,
    which all records share, through its query and key projections.
    """
    # Found before the calls are counted: finding it calls the network.
    head = network.token_head if isinstance(task, CausalChat) else None
    calls: dict[str, list[tuple[int, ...]]] = {}
    handles = []
    for name, module in trained_owners(network):
        rows = calls.setdefault(adapter_name(name), [])
        handles.append(module.register_forward_pre_hook(_noting(rows)))
    try:
        with torch.no_grad():
            for number in (2, 3):  # two sizes, so that no other dimension passes for the records
                group = [examples[index % len(examples)] for index in range(number)]
                for rows in calls.values():
                    rows.clear()
                batch = task.collate(group)
                inputs = network.inputs(batch)
                if head is not None:
                    # Logits of two whole records of a long context would not fit.
                    hidden_states(functools.partial(network, **inputs), head)
                else:
                    network(**inputs)
                for name, rows in calls.items():
                    _refuse_calls(name, rows, (number, batch.input_ids.shape[1]))
    finally:
        for handle in handles:
            handle.remove()


def _noting(shapes: list[tuple[int, ...]]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        first = arguments[0] if arguments else None
        shapes.append(tuple(first.shape) if isinstance(first, Tensor) else ())

    return note


def _refuse_calls(name: str, shapes: list[tuple[int, ...]], batch: tuple[int, int]) -> None:
    """Refuses a module by how it was called for a batch of [records, tokens]."""
    remedy = "choose other lora.target_modules, or another base"
    if not shapes:
        raise PreflightError(
            f"preflight: {name} is not called in a forward pass, so its weights are used in "
            f"another way or not at all, and it would learn nothing; {remedy}"
        )
    if len(shapes) > 1:
        raise PreflightError(
            f"preflight: {name} is called {len(shapes)} times in a forward pass; one call is "
            f"needed for exact per-record gradients; {remedy}"
        )
    if shapes[0][:1] == batch[:1]:
        return
    if shapes[0][:2] == (batch[1], batch[0]):
        why = "takes tokens before records, so its rows are not records"
    else:
        why = "does not take the records as its rows, so its gradients are not per record"
    raise PreflightError(
        f"preflight: {name} {why} (an input of {shapes[0]} for {batch[0]} records of {batch[1]} "
        f"tokens); {remedy}"
    )


def _losses(network: Network, task: Task, examples: Sequence[Example]) -> Tensor:
    batch = task.collate(examples)
    return trained_losses(network, task, batch)


def _check_prefix(network: Network, task: Task, examples: Sequence[Example]) -> None:
    if network.prefix is None:
        return
    problem = prefix_problem(network, task.collate(examples))
    if problem is not None:
        raise PreflightError(f"preflight: {problem}; set machine.frozen_cache_gib = 0")


def _check_again(
    network: Network, task: Task, examples: Sequence[Example], trained: dict[str, nn.Parameter]
) -> None:
    """Compares gradients with activations computed again to those with activations kept.

    Only the last tokens of each record are used, as kept activations of long ones may not fit.
    """
    if network.checkpoints is None:
        return
    short = [_last(example, KEPT_TOKENS) for example in examples]
    with network.checkpoints.off():
        kept = _record_gradients(network, task, short, trained)
    remedy = "set machine.gradient_checkpointing = false"
    try:
        again = _record_gradients(network, task, short, trained)
    except _CANNOT as error:
        raise PreflightError(
            "preflight: this base's activations cannot be computed again "
            f"({str(error).splitlines()[0]}); {remedy}"
        ) from error
    for name, one in again.items():
        other = kept[name]
        if one is None or other is None:  # `_check_gradients` reports it
            continue
        if not torch.equal(whole(one), whole(other)):
            raise PreflightError(
                f"preflight: {name}: a record's gradient changes if activations are computed "
                f"again; {remedy}"
            )


def _last(example: Example, tokens: int) -> Example:
    target = example.target
    return replace(
        example,
        input_ids=example.input_ids[-tokens:],
        target=target[-tokens:] if isinstance(target, tuple) else target,
        segments=example.segments[-tokens:],
        rejected=None,
    )


def _record_gradients(
    network: Network, task: Task, examples: Sequence[Example], trained: dict[str, nn.Parameter]
) -> dict[str, Gradient | None]:
    with per_record_hooks(network):
        _losses(network, task, examples).sum().backward()
        return {name: getattr(p, "grad_sample", None) for name, p in trained.items()}


def _check_gradients(
    network: Network, task: Task, examples: Sequence[Example], trained: dict[str, nn.Parameter]
) -> None:
    try:
        per_record = _record_gradients(network, task, examples, trained)
    except _CANNOT as error:
        raise PreflightError(
            "preflight: per-record gradients cannot be computed for this model "
            f"({str(error).splitlines()[0]}); choose other lora.target_modules"
        ) from error
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad and parameter.grad is not None:
            raise PreflightError(f"preflight: {adapter_name(name)} is frozen but got a gradient")
    for index, example in enumerate(examples):
        network.zero_grad(set_to_none=True)
        _losses(network, task, [example]).sum().backward()
        alone = {n: p.grad for n, p in trained.items()}
        length = (
            sum(float(g.float().square().sum()) for g in alone.values() if g is not None) ** 0.5
        )
        for name, expected in alone.items():
            found = per_record[name]
            if found is None or expected is None:
                raise PreflightError(
                    f"preflight: {name} gets no gradient; choose other lora.target_modules"
                )
            difference = float((of_unit(found, index).float() - expected.float()).norm())
            if not difference <= TOLERANCE[coarsest(network)] * length:
                raise PreflightError(
                    f"preflight: {name}: a record's gradient among others is off by "
                    f"{difference:.3g} from its gradient alone (norm {length:.3g}); this model's "
                    "records are not independent, so its privacy cannot be shown"
                )


def _check_step(network: Network, task: Task, examples: Sequence[Example]) -> None:
    trained = [p for _, p in trained_parameters(network)]
    before = [p.detach().clone() for p in trained]
    frozen = checksums(network)
    network.zero_grad(set_to_none=True)
    _losses(network, task, examples).sum().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    for (name, parameter), old in zip(trained_parameters(network), before, strict=True):
        if torch.equal(parameter, old):
            raise PreflightError(f"preflight: {name} is trained but did not move in one step")
    for name, found in checksums(network).items():
        if found != frozen[name]:
            raise PreflightError(
                f"preflight: {adapter_name(name)} is frozen but moved in one step: it shares its "
                "values with a trained tensor; choose other lora.target_modules, or another base"
            )
