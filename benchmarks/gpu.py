"""What a GPU computes, and how fast: `bash benchmarks/gpu.sh`, at most 8 minutes, no network.

Correctness: a record's contribution is the same bits in every row count of every padded length
that the proof keeps; the clipped sum is near that of plain autograd, record by record; a private
study runs from recipe to card; a deployed site over loopback answers from the device. Speed: a
private step over a plain one on random weights, tokens a second, and how much of the measured rate
of matrix products that is. The table is for `benchmarks/README.md`; what did not run says so.

    python -m benchmarks.gpu [--device cuda] [--size full] [--parts isolation oracle …] [--out FILE]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.random_llama import ONE_B, SEVEN_B, TINY, TRIED, Size, units_of, workspace_of
from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.errors import CloisterError
from cloister.models.checkpointing import CheckpointedLayers
from cloister.models.device import device_words, find_device
from cloister.models.network import trained_parameters
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.privacy.plan import Plan
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import simulate
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks, plain_gradient_sum
from cloister.training.proof import prove
from cloister.training.proof_key import shapes_to_try
from cloister.training.shapes import BatchShapes
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.federation import federation
from tests.support.studies import small_recipe

# Seconds: no part begins after it, so that all of them end within 8 minutes.
LAST_START = 360.0
TURNS = 5
# Added to what a row is called where `machine.gradient_checkpointing` is on.
CHECKPOINTED = ", checkpointing"
BOUND = 1.0
PLAN = Plan(
    public_records=1600,
    expected_batch_size=16,
    local_steps=1,
    num_rounds=2,
    noise_multiplier=1.0,
    max_grad_norm=BOUND,
    max_update_norm=1.0,
    delta=1e-5,
)


@dataclass(frozen=True)
class Row:
    """A measured setting's line in the table."""

    what: str
    value: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.value} |"


def isolation(device: str, is_tiny: bool) -> Iterator[Row]:
    """Bit equality over slots, companions and row counts, in bfloat16."""
    size = TINY if is_tiny else TRIED
    workspace = workspace_of(size, device, torch.bfloat16)
    config = TrainingConfig(expected_batch_size=16, physical_batch_tokens=16 * size.tokens)
    tried = shapes_to_try(workspace, config)
    proof = prove(workspace, PLAN, config)
    for edge, counts in tried.counts:
        kept = ", ".join(map(str, proof.shapes.rows(edge)))
        yield Row(
            f"bit-equal in bf16, {size.name}, {edge} tokens", f"rows {kept} of {len(counts)} tried"
        )
    whole = "one by one: companions change a record" if proof.one_by_one else "in batches"
    yield Row(f"records of {size.name} in bf16 go", whole)


def oracle(device: str, is_tiny: bool) -> Iterator[Row]:
    """The clipped sum against plain autograd of each record alone, in float64 sums."""
    for dtype in (torch.float32, torch.bfloat16):
        size = TINY if is_tiny else replace(TRIED, layers=2)
        workspace = workspace_of(size, device, dtype)
        network, task = workspace.network, workspace.task
        units = units_of(workspace, size)[:4]
        parameters = [p for _, p in trained_parameters(network)]
        expected = [torch.zeros(p.shape, dtype=torch.float64) for p in parameters]
        for unit in units:
            alone = [g.double().cpu() for g in plain_gradient_sum(network, task, [unit], 2**20)]
            norm = sum(float(g.square().sum()) for g in alone) ** 0.5
            for total, gradient in zip(expected, alone, strict=True):
                total += gradient * min(1.0, BOUND / norm)
        with per_record_hooks(network):
            found = clipped_gradient_sum(network, task, units, BOUND, one_shape(size))
        apart = sum(
            float((t.double().cpu() * found.grid - e).square().sum())
            for t, e in zip(found.tensors, expected, strict=True)
        )
        length = sum(float(e.square().sum()) for e in expected) ** 0.5
        kind = str(dtype).removeprefix("torch.")
        yield Row(f"oracle gap, {kind}, {size.name}", f"{apart**0.5 / length:.1e} of the sum")


def study(device: str, is_tiny: bool) -> Iterator[Row]:
    """A private study from recipe to certificates; without noise it would be no test of privacy."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = small_recipe(Path(folder) / "study", f"machine.device={device}")
        run = RunDirectory.create(Path(folder) / "run", recipe)
        result = simulate(recipe, run)
        card = (run.path / "adapter" / "README.md").is_file()
    metric = f"{result.metric} {result.test[result.metric]:.2f}"
    yield Row("a private study, two sites, two rounds", f"{metric}; card written: {card}")


def deployed(device: str, is_tiny: bool) -> Iterator[Row]:
    """Services, TLS and an agent without network, which computes on the device."""
    with (
        tempfile.TemporaryDirectory() as folder,
        federation(Path(folder), ("east",), epsilon="200.0", noise=0.8) as made,
    ):
        for site in made.sites.values():
            with site.path.open("a", encoding="utf-8") as file:
                file.write(f'\n[machine]\ndevice = "{device}"\n')
        for who in ("server", *made.sites):
            made.start(who)
        made.submit("gpu", 2, "data.sites=1")
        ended = made.wait_ended("gpu", 240.0)
        where = AgentFolder.of(made.sites["east"]).activity().get("device", "nothing")
    verdict = "finished" if ended is RunStatus.FINISHED else f"ended {ended}"
    yield Row("a deployed site over loopback, two rounds", f"{verdict}; computed on {where}")


def speed(device: str, is_tiny: bool) -> Iterator[Row]:
    """Private over plain, tokens a second, share of the matmul rate, peak memory."""
    rate = matmul_rate(device, 256 if is_tiny else 8192)
    yield Row("rate of matrix products, bf16", f"{rate / 1e12:.3g} · 10¹² operations a second")
    for size in (TINY,) if is_tiny else (ONE_B, SEVEN_B):
        for again in (False, True):
            try:
                yield from steps(size, device, rate, again=again)
            except torch.OutOfMemoryError:
                what = f"private ÷ plain step, {size.name}{CHECKPOINTED * again}"
                yield Row(what, "does not fit")
            if device.startswith("cuda"):
                torch.cuda.empty_cache()


def steps(size: Size, device: str, rate: float, *, again: bool) -> Iterator[Row]:
    """Of one size, with activations kept or computed again in the backward pass."""
    workspace = workspace_of(size, device, torch.bfloat16)
    if again:
        network = workspace.network
        network.checkpoints = CheckpointedLayers(network.backbone, size.layers)
    units = units_of(workspace, size)
    plain = measured(lambda: plain_step(workspace, size, units), device)
    private = measured(lambda: private_step(workspace, size, units), device)
    tokens = size.records * size.tokens
    # Forward, and backward to activations alone: frozen weights get no gradient.
    numbers = sum(p.numel() for p in workspace.network.parameters() if not p.requires_grad)
    embeddings = workspace.network.base.get_input_embeddings().weight.numel()
    operations = 4 * (numbers - embeddings) * tokens
    about = f"{size.name}, rank {size.rank}, bf16, {size.records} × {size.tokens}"
    about += CHECKPOINTED * again
    yield Row(f"private ÷ plain step, {about}", f"{private.seconds / plain.seconds:.3f}")
    for kind, one in (("plain", plain), ("private", private)):
        share = f"{operations / one.seconds / rate:.2f} of the matmul rate"
        speed_of = f"{one.seconds:.4g} s, {tokens / one.seconds:,.0f} tokens a second"
        yield Row(f"{kind} step, {about}", f"{speed_of}, {share}, {one.peak}")


@dataclass(frozen=True)
class Measured:
    """Median seconds of a step, and its peak memory in words."""

    seconds: float
    peak: str


def measured(step: Callable[[], None], device: str) -> Measured:
    """After one turn to warm up."""
    is_gpu = device.startswith("cuda")
    step()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(TURNS):
        synchronize(device)
        started = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - started)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if is_gpu else "memory not run"
    return Measured(statistics.median(times), peak)


def plain_step(workspace: Workspace, size: Size, units: list[UnitExamples]) -> None:
    sums = plain_gradient_sum(workspace.network, workspace.task, units, size.records * size.tokens)
    move(workspace, sums)


def private_step(workspace: Workspace, size: Size, units: list[UnitExamples]) -> None:
    with per_record_hooks(workspace.network):
        clipped = clipped_gradient_sum(
            workspace.network, workspace.task, units, BOUND, one_shape(size)
        )
    move(workspace, add_noise(clipped, 1.0, OsEntropy()).tensors)


def move(workspace: Workspace, sums: tuple[torch.Tensor, ...]) -> None:
    with torch.no_grad():
        for (_, parameter), gradient in zip(
            trained_parameters(workspace.network), sums, strict=True
        ):
            parameter.add_(gradient.to(parameter), alpha=-1e-6)


def one_shape(size: Size) -> BatchShapes:
    """The batch as one pass."""
    return BatchShapes(((size.tokens, (size.records,)),))


def matmul_rate(device: str, width: int) -> float:
    """Operations a second of a square product in bfloat16."""
    one, other = (torch.randn(width, width, device=device).bfloat16() for _ in range(2))

    def product() -> None:
        torch.matmul(one, other)

    return 2 * width**3 / measured(product, device).seconds


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[str, bool], Iterator[Row]]] = {
    "isolation": isolation,
    "oracle": oracle,
    "study": study,
    "deployed": deployed,
    "speed": speed,
}


def rows(device: str, is_tiny: bool, parts: list[str]) -> Iterator[Row]:
    """All rows; a part that cannot run is one row that says why."""
    try:
        yield Row("device", device_words(find_device(device)))
    except CloisterError as error:
        yield from [Row(part, f"not run: {error}") for part in ("device", *parts)]
        return
    started = time.perf_counter()
    for part in parts:
        if time.perf_counter() - started > LAST_START:
            yield Row(part, "not run: the time was over")
            continue
        try:
            yield from PARTS[part](device, is_tiny)
        except (CloisterError, RuntimeError, AssertionError, OSError) as error:
            yield Row(part, f"FAILED: {(str(error) or type(error).__name__).splitlines()[0]}")
    yield Row("seconds in all", f"{time.perf_counter() - started:.0f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, help="a file for the table too")
    given = parser.parse_args(arguments)
    lines = ["| what | found |", "|---|---|"]
    print("\n".join(lines), flush=True)
    for row in rows(given.device, given.size == "tiny", given.parts):
        print(row, flush=True)
        lines.append(str(row))
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
