"""What a federation costs at sizes that were not run: a model fitted to the kept measurements.

    python -m benchmarks.cost_model [--price 2.5] [--flops 4e14] [--write]

Pure arithmetic. Costs that were measured at several sizes are lines through these points
(`Line`, least squares of relative errors); costs of a base that was never run follow from its
weights: 4 operations for each frozen weight and token (2 forward, 2 back to the activations; no
gradient of a frozen weight is computed). Prints the tables of `docs/scale.md`, or writes them
there; a test compares them. Each row says whether it is measured or computed, and from what.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recorded_rows import Recorded, recorded
from cloister.deployment.coordinator.reply_size import BESIDE, LARGEST

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- tables: python -m benchmarks.cost_model --write -->", "<!-- end of tables -->"
# Operations for each frozen weight and token of a training step.
OPERATIONS = 4
# Dense bf16 rate of one H100 (989e12 by its data sheet) times 0.4, a usual share in published
# training runs. Assumed: no GPU was at hand. `benchmarks/gpu.sh` measures the share on yours.
ASSUMED_FLOPS = 4e14
# Money for one hour of one such GPU; any currency.
ASSUMED_PRICE = 2.5
# Bytes of a frozen weight in bf16, and of an adapter's value in float32.
BF16, FLOAT32, INT8 = 2, 4, 1
# Memory of one GPU: 80 GB, as an H100 has.
GPU_BYTES = 80e9


@dataclass(frozen=True)
class Line:
    """A cost that grows with a size: `fixed + each * size`.

    Attributes:
        fixed: Cost at size 0; not negative.
        each: Cost of one more; not negative.
        error: Largest relative error at the points that it was fitted to.
        low: Smallest size that was measured.
        high: Largest size that was measured.
    """

    fixed: float
    each: float
    error: float
    low: float
    high: float

    def __call__(self, size: float) -> float:
        """The cost at a size."""
        return self.fixed + self.each * size


def fitted(points: Sequence[tuple[float, float]]) -> Line:
    """Fits a line to points of size and cost, by least squares of relative errors.

    Sizes spread over decades: absolute errors would fit the largest one alone. A negative part is
    set to 0 and the other one fitted again.

    Args:
        points: At least one; costs above 0.

    Raises:
        ValueError: There is no point, or a cost that is not above 0.
    """
    if not points or any(cost <= 0 for _, cost in points):
        raise ValueError(f"{len(points)} points given; at least one is needed, with costs above 0")
    weights = [1 / cost**2 for _, cost in points]
    fixed, each = _least_squares(points, weights)
    if each < 0:
        fixed, each = (
            sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / sum(weights),
            0.0,
        )
    if fixed < 0:
        over = sum(w * x * x for w, (x, _) in zip(weights, points, strict=True))
        fixed = 0.0
        each = sum(w * x * y for w, (x, y) in zip(weights, points, strict=True)) / over
    error = max(abs(fixed + each * x - y) / y for x, y in points)
    sizes = [x for x, _ in points]
    return Line(fixed, each, error, min(sizes), max(sizes))


def _least_squares(
    points: Sequence[tuple[float, float]], weights: Sequence[float]
) -> tuple[float, float]:
    """The weighted least-squares line; constant if all sizes are the same."""
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    if spread == 0:
        return mean_y, 0.0
    both = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
    return mean_y - both / spread * mean_x, both / spread


@dataclass(frozen=True)
class Base:
    """A base by its public configuration.

    Attributes:
        name: As the table has it.
        weights: All frozen weights.
        layers: Layers.
        hidden: Hidden units.
        inner: Units of the MLP.
        kv: Width of keys and values.
    """

    name: str
    weights: float
    layers: int
    hidden: int
    inner: int
    kv: int

    def adapter(self, rank: int) -> int:
        """Values of LoRA of a rank on all seven linear modules of each layer."""
        h, i, k = self.hidden, self.inner, self.kv
        pairs = [(h, h), (h, k), (h, k), (h, h), (h, i), (h, i), (i, h)]
        return self.layers * rank * sum(into + out for into, out in pairs)


# By the public configurations of Llama 2 7B and 70B.
BASES = (
    Base("7B", 6.74e9, 32, 4096, 11_008, 4096),
    Base("70B", 68.98e9, 80, 8192, 28_672, 1024),
)


@dataclass(frozen=True)
class Study:
    """A study of whose costs a table is made.

    Attributes:
        sites: Sites.
        records: Records of each site.
        rounds: Rounds; each is one step.
        batch: Expected records of a step at one site.
        tokens: Tokens of a record.
        rank: Of the adapters.
    """

    sites: int = 1000
    records: int = 1_000_000
    rounds: int = 10_000
    batch: int = 1000
    tokens: int = 512
    rank: int = 16


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        what: What it costs.
        cost: The cost, in words.
        origin: Measured, or computed, and from what.
    """

    what: str
    cost: str
    origin: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.cost} | {self.origin} |"


def amount(value: float, unit: str) -> str:
    """A number with three digits and its unit; bytes and seconds in the unit that people use."""
    scales = {
        "B": [(1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")],
        "s": [(31_557_600, "years"), (86_400, "days"), (3_600, "h"), (60, "min")],
    }
    for size, name in scales.get(unit, []):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def site_rows(study: Study, found: Recorded) -> Iterator[Row]:
    """What one site pays once: its records, and its ledger."""
    seconds = fitted(found.rows["encode: CPU seconds by records"])
    memory = fitted(found.rows["encode: GB by records"])
    count = f"{study.records:,} records of 128 tokens"
    yield Row(f"{count}: read and encoded, once", amount(seconds(study.records), "s"), _of(seconds))
    yield Row("the same: memory", amount(memory(study.records) * 1e9, "B"), _of(memory))
    charge = fitted(found.curves["round by ledger rounds"])
    # Each round costs `fixed + each * rounds before it`.
    whole = study.rounds * charge.fixed + charge.each * study.rounds * (study.rounds - 1) / 2
    size = fitted(found.ledger_bytes)
    yield Row(
        f"a ledger's {study.rounds:,} rounds: charged, written and released",
        f"{amount(whole, 's')} in all, {charge(study.rounds) * 1e3:.3g} ms for the last",
        _of(charge),
    )
    yield Row("the same: its file", amount(size(study.rounds), "B"), _of(size))


def coordinator_rows(study: Study, found: Recorded) -> Iterator[Row]:
    """What the coordinator pays for connected sites."""
    for process in ("superlink", "gate", "executor"):
        line = fitted(found.sites_of("cpu_ms_per_site_and_round", process))
        yield Row(
            f"{process}: CPU of one round, {study.sites:,} sites with updates of 3 kB",
            amount(line(study.sites) / 1e3, "s"),
            _of(line),
        )
    lines = [
        fitted(found.sites_of("idle_cpu_ms_per_site_and_second", process))
        for process in ("superlink", "gate")
    ]
    yield Row(
        f"gate and SuperLink while {study.sites:,} sites wait",
        f"{sum(line(study.sites) for line in lines) / 1e3:.2g} cores",
        _of(lines[0]),
    )


def base_rows(
    base: Base, study: Study, found: Recorded, price: float, flops: float
) -> Iterator[Row]:
    """What a base costs: a site's time, money and memory, and everybody's bytes."""
    values = base.adapter(study.rank)
    operations = OPERATIONS * base.weights * study.tokens * study.batch
    seconds = operations / flops
    whole = seconds * study.rounds
    assumed = f"computed: 4 operations a weight and token at {flops:.3g}/s (assumed)"
    yield Row(f"{base.name}: a step of {study.batch:,} records", amount(seconds, "s"), assumed)
    yield Row(
        f"{base.name}: {study.rounds:,} steps at one site",
        f"{amount(whole, 's')}, {whole / 3600 * price:,.0f} in money",
        f"computed: the row above, {price:g} for an hour",
    )
    total = whole / 3600 * price * study.sites
    yield Row(f"{base.name}: all {study.sites:,} sites", f"{total:,.0f} in money", "computed")
    weights = base.weights * BF16
    yield Row(
        f"{base.name}: frozen weights in bf16",
        f"{amount(weights, 'B')}, {weights / GPU_BYTES:.2g} GPUs of 80 GB",
        "computed from its configuration",
    )
    yield Row(
        f"{base.name}: values of rank {study.rank}", f"{values / 1e6:.1f} million", "computed"
    )
    rate = sum(y for _, y in found.rows["noise: million values a second in one core"]) / 2
    yield Row(
        f"{base.name}: noise of one step, one core",
        amount(values / rate / 1e6, "s"),
        "computed from the measured rate",
    )
    yield Row(
        f"{base.name}: an update, float32 and int8",
        f"{amount(values * FLOAT32, 'B')} and {amount(values * INT8, 'B')}",
        "computed",
    )
    through = study.sites * values * (FLOAT32 + INT8)
    yield Row(
        f"{base.name}: through the coordinator in a round (int8 up, float32 down)",
        f"{amount(through, 'B')}; {amount(through * study.rounds, 'B')} in the study",
        "computed",
    )
    yield Row(
        f"{base.name}: a round's questions in the SuperLink's database, until they are fetched",
        amount(study.sites * values * FLOAT32, "B"),
        "computed: each site's question is signed with a copy of the adapter in it",
    )
    beside = found.rows["mean: bytes beside the updates by byte of one update"][0][1]
    yield Row(
        f"{base.name}: coordinator's memory for a mean, any number of sites",
        amount((beside + 1) * values * FLOAT32, "B"),
        f"computed: {beside:.3g} updates beside the one that arrives, measured with 40 MB",
    )
    add = fitted(found.curves["sum by sites"])
    yield Row(
        f"{base.name}: coordinator's CPU for the mean of {study.sites:,}",
        amount(add(study.sites) * study.sites * values, "s"),
        _of(add),
    )


def walls(study: Study, found: Recorded) -> Iterator[Row]:
    """Limits that a study meets before others, in the order of the sites or values."""
    most = (LARGEST - BESIDE) / FLOAT32
    for base in BASES:
        values = base.adapter(study.rank)
        fits = "fits" if values <= most else "**refused**"
        rank = int(most / base.adapter(1))
        yield Row(
            f"{base.name}: a reply in float32 or masked, at most {amount(LARGEST, 'B')}",
            f"{amount(values * FLOAT32, 'B')}: {fits}; rank {rank} at most",
            "computed; the limit is `reply_size.py`'s",
        )
    for process in ("superlink", "gate"):
        line = fitted(found.sites_of("cpu_ms_per_site_and_round", process))
        if line.each == 0:  # measured at one size alone, or too noisy to tell
            continue
        yield Row(
            f"{process}: sites whose round keeps its one process busy for an hour",
            f"{_sites_in(3_600, line):,}",
            _of(line),
        )


def _sites_in(seconds: float, line: Line) -> int:
    """Number of sites whose round takes these CPU seconds.

    Args:
        seconds: CPU seconds of one process.
        line: Its milliseconds of a round, by sites; they grow with the sites.
    """
    return max(0, int((1e3 * seconds - line.fixed) / line.each))


def _of(line: Line) -> str:
    """What a line was fitted to, and how well."""
    if line.low == line.high:
        return f"computed from one measurement, at {line.low:,.0f}"
    return (
        f"computed from measurements at {line.low:,.0f} to {line.high:,.0f}, "
        f"off by at most {line.error:.0%}"
    )


def tables(study: Study, found: Recorded, price: float, flops: float) -> dict[str, list[Row]]:
    """Returns the tables by their title."""
    return {
        "One site": list(site_rows(study, found)),
        "The coordinator": list(coordinator_rows(study, found)),
        **{base.name: list(base_rows(base, study, found, price, flops)) for base in BASES},
        "The first walls": list(walls(study, found)),
    }


def markdown(found: Mapping[str, Sequence[Row]]) -> str:
    """The tables in Markdown, each below its title."""
    parts = [
        f"## {title}\n\n| what | cost | from |\n|---|---|---|\n" + "\n".join(map(str, rows))
        for title, rows in found.items()
    ]
    return "\n\n".join(parts) + "\n"


def with_tables(text: str, tables_in_markdown: str) -> str:
    """A page with other tables between its two marks.

    Raises:
        ValueError: A mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: has no {BEGIN} … {END}; put both where the tables belong")
    return f"{before}{BEGIN}\n\n{tables_in_markdown}\n{END}{after}"


def main() -> None:
    """Prints the tables in Markdown, or writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--price", type=float, default=ASSUMED_PRICE, help="of a GPU's hour")
    parser.add_argument("--flops", type=float, default=ASSUMED_FLOPS, help="of one GPU, in use")
    parser.add_argument("--sites", type=int, default=Study.sites)
    parser.add_argument("--records", type=int, default=Study.records, help="of one site")
    parser.add_argument("--rounds", type=int, default=Study.rounds)
    parser.add_argument("--write", action="store_true", help="write them into docs/scale.md")
    asked = parser.parse_args()
    study = Study(asked.sites, asked.records, asked.rounds)
    made = markdown(tables(study, recorded(), asked.price, asked.flops))
    if asked.write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main()
