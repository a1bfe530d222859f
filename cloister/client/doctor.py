"""Whether a site can take part: every check with its verdict and, where it fails, the remedy."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import apsw
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cloister.client.membership import Membership
from cloister.client.own import accepted_plan, own_records, own_workspace
from cloister.client.own_ledger import open_ledger
from cloister.client.reach import reach
from cloister.client.site_file import SiteFile
from cloister.data.records import Record
from cloister.errors import CloisterError, RefusedError
from cloister.models.network import trained_parameters
from cloister.models.state import read_adapter, write_adapter
from cloister.privacy.ledger import key_file
from cloister.privacy.ledger_file import LedgerFile, refuse_network_file_system
from cloister.privacy.stated import of_plan
from cloister.privacy.verify import verify
from cloister.recipe import Recipe
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks, plain_gradient_sum
from cloister.training.preflight import preflight
from cloister.training.units import singles
from cloister.training.workspace import Workspace

# Room for a ledger's messages and a checkpoint; a message is at most 20 MB by default.
FREE_BYTES = 2**30
# A ledger syncs twice a round; beyond this a round waits for the disk and not for the training.
SLOW_SYNC = 1.0
# SQLite before it may corrupt a file when two connections reset its log.
SQLITE = (3, 51, 3)
# A declared size so far from the true one makes ε or the batches another than meant.
DECLARED_FACTOR = 2.0
# Memory for the base, its activations and per-record gradients, over the base's own.
MEMORY_FACTOR = 3.0
# float32 rounding between two ways to the same sum.
PARITY = 1e-4


class Level(StrEnum):
    """A verdict."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Outcome:
    """One check's.

    Attributes:
        name: Of the check.
        level: Its verdict.
        detail: What was found.
        remedy: What to do; empty where it passed.
    """

    name: str
    level: Level
    detail: str
    remedy: str = ""


def examine(file: SiteFile, recipe: Recipe | None) -> Iterator[Outcome]:
    """Makes every check, those of a study only where one is given.

    Args:
        file: The site's.
        recipe: A study's that the site is to join.
    """
    checks: list[tuple[str, Callable[[], Outcome]]] = [
        ("python", _python),
        ("packages", _packages),
        ("randomness", _randomness),
        ("sqlite", _sqlite),
        ("disk space", lambda: _disk_space(file)),
        ("disk sync", lambda: _disk_sync(file)),
        ("file system", lambda: _file_system(file)),
        ("ledger", lambda: _ledger(file)),
        ("key", lambda: _key(file)),
        ("clock", lambda: _clock(file)),
    ]
    for name, check in checks:
        yield _run(name, check)
    if Membership.of(file).path.exists():
        yield from _network(Membership.of(file))
    if recipe is not None:
        yield from _study(file, recipe)


def _network(membership: Membership) -> Iterator[Outcome]:
    try:
        for step in reach(membership):
            level = Level.PASS if step.fine else Level.FAIL if step.blocks else Level.WARN
            yield Outcome(f"way: {step.name}", level, step.detail, step.remedy)
    except CloisterError as error:
        yield Outcome("way", Level.FAIL, str(error), "join again with the coordinator's invite")


def _study(file: SiteFile, recipe: Recipe) -> Iterator[Outcome]:
    found: dict[str, list[Record] | Workspace] = {}

    def data() -> Outcome:
        records = found["records"] = own_records(file, recipe)
        persons = {record.person for record in records if record.person is not None}
        count = len(persons) if recipe.privacy.unit == "person" and persons else len(records)
        share = file.site.public_records / count
        detail = f"{len(records)} records fit the study (told to nobody)"
        if not 1 / DECLARED_FACTOR <= share <= DECLARED_FACTOR:
            return Outcome(
                "data", Level.WARN, f"{detail}; {file.site.public_records} are declared",
                "declare a round number nearer to it in site.public_records: the sample rate "
                "follows it",
            )  # fmt: skip
        return Outcome("data", Level.PASS, detail)

    def base() -> Outcome:
        workspace = found["workspace"] = own_workspace(file, recipe)
        if workspace.base_sha256 not in file.policy.accept.base_sha256:
            raise RefusedError(
                f"the base has {workspace.base_sha256}, which site.toml does not accept; to trust "
                "it, add the hash to accept.base_sha256"
            )
        return Outcome("base model", Level.PASS, f"weights {workspace.base_sha256[:12]}…, accepted")

    yield _run("data", data)
    yield _run("base model", base)
    workspace, records = found.get("workspace"), found.get("records")
    if not isinstance(workspace, Workspace) or not isinstance(records, list):
        return
    yield _run("memory", lambda: _memory(workspace))
    yield _run("policy", lambda: _policy(file, recipe, workspace))
    yield _run("gradients", lambda: _gradients(workspace, records))
    yield _run("noiseless parity", lambda: _parity(workspace, records))
    yield _run("reload", lambda: _reload(workspace, records))


def _run(name: str, check: Callable[[], Outcome]) -> Outcome:
    try:
        return check()
    except CloisterError as error:
        found = [line.partition("; ") for line in str(error).splitlines()]
        details = " · ".join(what for what, _, _ in found)
        return Outcome(name, Level.FAIL, details, " · ".join(r or what for what, _, r in found))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        return Outcome(name, Level.FAIL, f"{type(error).__name__}: {error}", "look into this first")


def _python() -> Outcome:
    version, needed = platform.python_version(), metadata.metadata("cloister")["Requires-Python"]
    if not SpecifierSet(needed).contains(version, prereleases=True):
        return Outcome("python", Level.FAIL, version, f"install Python {needed}")
    return Outcome("python", Level.PASS, f"{version} on {platform.system()} {platform.machine()}")


def _packages() -> Outcome:
    wrong = []
    for line in metadata.requires("cloister") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = ""
        if not found or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found or 'missing'} ({requirement.specifier})")
    if wrong:
        return Outcome(
            "packages", Level.FAIL, ", ".join(wrong), "install with the project's constraints.txt"
        )
    return Outcome("packages", Level.PASS, f"as cloister {metadata.version('cloister')} needs them")


def _randomness() -> Outcome:
    if os.urandom(32) == os.urandom(32):
        return Outcome("randomness", Level.FAIL, "the system repeats itself", "replace this system")
    return Outcome("randomness", Level.PASS, "the operating system's")


def _sqlite() -> Outcome:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < SQLITE:
        needed = ".".join(map(str, SQLITE))
        return Outcome("sqlite", Level.FAIL, apsw.sqlite_lib_version(), f"{needed} is needed: "
                       "install apsw from its wheel, which brings its own")  # fmt: skip
    return Outcome("sqlite", Level.PASS, apsw.sqlite_lib_version())


def _folder(file: SiteFile) -> Path:
    folder = file.ledger.parent
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk_space(file: SiteFile) -> Outcome:
    free = shutil.disk_usage(_folder(file)).free
    detail = f"{free / 2**30:.1f} GiB free beside the ledger"
    if free < FREE_BYTES:
        return Outcome("disk space", Level.FAIL, detail, "free 1 GiB: a full disk stops a round")
    return Outcome("disk space", Level.PASS, detail)


def _disk_sync(file: SiteFile) -> Outcome:
    path = _folder(file) / f".doctor.{os.getpid()}"
    started = time.perf_counter()
    try:
        with path.open("wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        path.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    detail = f"{seconds * 1e3:.0f} ms to write and sync beside the ledger"
    if seconds > SLOW_SYNC:
        return Outcome("disk sync", Level.WARN, detail, "keep the ledger on a faster local disk")
    return Outcome("disk sync", Level.PASS, detail)


def _file_system(file: SiteFile) -> Outcome:
    refuse_network_file_system(file.ledger)
    return Outcome("file system", Level.PASS, "local")


def _ledger(file: SiteFile) -> Outcome:
    ledger = open_ledger(file)
    verdict = verify(LedgerFile(file.ledger).entries(), str(file.ledger))
    allowed = file.policy.lifetime
    if ledger.budget.epsilon > allowed.epsilon or ledger.budget.delta > allowed.delta:
        return Outcome(
            "ledger", Level.FAIL,
            f"begun with ε = {ledger.budget.epsilon:g}, the policy allows {allowed.epsilon:g}",
            "raise budget.epsilon again, or stop: a ledger's budget never changes",
        )  # fmt: skip
    return Outcome(
        "ledger", Level.PASS,
        f"sound: {verdict.charges} rounds charged, {verdict.of_budget}",
    )  # fmt: skip


def _key(file: SiteFile) -> Outcome:
    path = key_file(file.ledger)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Outcome(
            "key", Level.FAIL, f"{path.name} is readable by others ({mode:04o})",
            f"chmod 600 {path}",
        )  # fmt: skip
    return Outcome("key", Level.PASS, "readable by its owner alone")


def _clock(file: SiteFile) -> Outcome:
    from datetime import UTC, datetime

    entries = LedgerFile(file.ledger).entries()
    last = datetime.fromisoformat(str(entries[-1].fields["time"]))
    now = datetime.now(UTC)
    if now < last:
        return Outcome(
            "clock", Level.WARN, f"{now:%Y-%m-%d %H:%M} lies before the ledger's last entry",
            "set the clock (NTP); certificates and logs carry its time",
        )  # fmt: skip
    return Outcome("clock", Level.PASS, f"{now:%Y-%m-%d %H:%M} UTC")


def _memory(workspace: Workspace) -> Outcome:
    base = sum(p.numel() * p.element_size() for p in workspace.network.parameters())
    if torch.cuda.is_available():
        free, where = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name()
    else:
        free, where = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "CPU"
    detail = f"{free / 2**30:.1f} GiB free ({where}), the base takes {base / 2**30:.2f}"
    if free < MEMORY_FACTOR * base:
        return Outcome(
            "memory", Level.WARN, detail,
            "a round may not fit: free memory, or ask for a smaller training.physical_batch_tokens",
        )  # fmt: skip
    return Outcome("memory", Level.PASS, detail)


def _policy(file: SiteFile, recipe: Recipe, workspace: Workspace) -> Outcome:
    plan = accepted_plan(file, recipe, workspace)
    return Outcome(
        "policy", Level.PASS,
        f"the study is accepted: {of_plan(plan)}; {plan.num_rounds} rounds, noise multiplier "
        f"{plan.noise_multiplier:g}",
    )  # fmt: skip


def _gradients(workspace: Workspace, records: list[Record]) -> Outcome:
    workspace.train_names(frozenset(workspace.start))
    samples = sorted(workspace.encode(records[:8]), key=lambda e: len(e.input_ids))
    preflight(workspace.network, workspace.task, [samples[-1], samples[0]])
    return Outcome("gradients", Level.PASS, "per-record gradients are exact, every tensor moves")


def _parity(workspace: Workspace, records: list[Record]) -> Outcome:
    """Without noise, and with a bound that nothing reaches, private training is plain training."""
    write_adapter(workspace.network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    units, tokens, bound = singles(workspace.encode(records[:8])), 2048, 1e6
    plain = plain_gradient_sum(workspace.network, workspace.task, units, tokens)
    with per_record_hooks(workspace.network):
        total = clipped_gradient_sum(workspace.network, workspace.task, units, bound, tokens)
    private = [tensor.double() * total.grid for tensor in total.tensors]
    length = sum(float(p.double().square().sum()) for p in plain) ** 0.5
    apart = sum(
        float((a.cpu() - b.double().cpu()).square().sum())
        for a, b in zip(private, plain, strict=True)
    )
    # The grid of so large a bound is coarse: 10⁶/2³⁰ a coordinate.
    rounding = total.grid * sum(p.numel() for p in plain) ** 0.5
    if apart**0.5 > PARITY * length + rounding:
        raise RefusedError(
            f"private and plain gradients differ by {apart**0.5 / max(length, 1e-30):.2g} of their "
            "length; train nothing with this installation, and report it"
        )
    return Outcome("noiseless parity", Level.PASS, "private training without noise is plain")


def _reload(workspace: Workspace, records: list[Record]) -> Outcome:
    network, task = workspace.network, workspace.task
    write_adapter(network, workspace.start)
    workspace.train_names(frozenset(workspace.start))
    with torch.no_grad():
        for _, parameter in trained_parameters(network):
            parameter.add_(0.01)
        batch = task.collate(workspace.encode(records[:4]))
        before = network.logits(batch).clone()
        kept = read_adapter(network)
        write_adapter(network, workspace.start)
        moved = not torch.equal(network.logits(batch), before)
        write_adapter(network, kept)
        same = torch.equal(network.logits(batch), before)
    write_adapter(network, workspace.start)
    if not (moved and same):
        raise RefusedError(
            "an adapter that is read and written back gives other logits; train nothing with this "
            "installation, and report it"
        )
    return Outcome("reload", Level.PASS, "an adapter read and written back gives the same logits")
