"""The layers of docs/architecture.md hold: who may import which room."""

import ast
import json
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from cloister.client.site_file import EXAMPLE, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.journal import Run, RunStatus, write_run
from cloister.deployment.site.open_ledger import begin_ledger
from tests.support.federation import admit

PACKAGE = Path(__file__).parents[1] / "cloister"

# A room imports from lower numbers and itself only.
ROOMS = {
    "__init__": 0,
    "errors": 0,
    "seeds": 0,
    "fields": 0,
    "names": 0,
    "files": 0,
    "bounds": 0,
    "toml_text": 0,
    "json_text": 0,
    "printable": 0,
    "report_page": 0,
    "archive": 0,
    "owner_only": 0,
    "plugins": 0,
    "staging": 0,
    "stopping": 0,
    "adapter": 1,
    "privacy": 2,
    "data": 2,
    "ledger": 3,
    "strategies": 3,
    "labelling": 3,
    "tasks": 3,
    "secagg": 4,
    "models": 4,
    "feedback": 4,
    "protocol": 4,
    "training": 5,
    "recipe": 6,
    "evidence": 7,
    "export": 8,
    "client": 9,
    "server": 9,
    "registry": 9,
    "voting": 9,
    "simulation": 10,
    "deployment": 10,
    "audit": 11,
    "serving": 11,
    "dashboard": 11,
    "documents": 11,
    "service": 12,
    "trust": 12,
    "synthesis": 12,
    "testing": 11,
    "api": 12,
    "watching": 13,
    "cli": 14,
    "__main__": 15,
    "canonical": 0,
    "quiet": 0,
}
# Libraries that only some rooms may know.
CONFINED = {
    "flwr": {"client", "server", "simulation", "deployment", "audit"},
    "flwr_datasets": set(),
    "opacus": {"privacy", "training"},
    "peft": {"models", "export"},
    "dp_accounting": {"privacy"},
    "typer": {"cli"},
    "rich": {"cli"},
    "jinja2": {"dashboard", "tasks"},
    "prometheus_client": {"dashboard", "service", "watching"},
    "markupsafe": {"dashboard"},
    "fastapi": {"dashboard", "deployment"},
    "py3langid": {"data"},
    "datasketch": {"data"},
}
# What only training, and what reads its data, may load: half a gigabyte and seconds a process.
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "opacus",
    "datasets",
    "pandas",
    "pyarrow",
    "sklearn",
    "matplotlib",
}
# Pairs of a room that depend on one another within it, which rooms alone would not show.
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def upward(own: str, imported: str) -> bool:
    """Whether a room may not import a module."""
    # The package's own file names the public values, which it imports when they are first used.
    if own == "__init__" or not imported.startswith("cloister."):
        return False
    other = imported.split(".")[1]
    if other not in ROOMS:  # `from cloister import __version__`
        other = "__init__"
    return other != own and ROOMS[other] >= ROOMS[own] and ROOMS[other] > 0


def test_a_module_imports_from_lower_rooms_only() -> None:
    assert {room(path) for path in SOURCES} <= set(ROOMS), "a room has no place in the table"
    wrong = [
        f"{path} imports {name}"
        for path in SOURCES
        for name in imports(path)
        if upward(room(path), name)
    ]
    assert wrong == []


def test_an_upward_import_would_be_caught() -> None:
    assert upward("privacy", "cloister.models.network")
    assert upward("client", "cloister.server.rounds")
    assert not upward("models", "cloister.tasks.task")


def test_libraries_stay_in_their_rooms() -> None:
    wrong = [
        f"{path} imports {name}"
        for path in SOURCES
        for name in imports(path)
        if room(path) not in CONFINED.get(name.split(".")[0], {room(path)})
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    known = {".".join(("cloister", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in SOURCES}
    for path in SOURCES:
        own = ".".join(("cloister", *path.relative_to(PACKAGE).with_suffix("").parts))
        named = [name.split(".") for name in imports(path)]
        above = {".".join(parts[:n]) for parts in named for n in range(1, len(parts))}
        graph[own] = (above & known) - {own}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


# Seconds to load, and only some commands use them: a module imports them at its head only if it is
# itself imported where they are used.
SLOW = {"flwr_datasets", "matplotlib", "nltk", "opacus", "rouge_score", "sklearn"}
ALWAYS_SLOW = {
    "evidence/fonts.py",
    "evidence/html.py",
    "evidence/pdf.py",
    "evidence/report_document.py",
    "evidence/report_plots.py",
    "training/layer_probe.py",
}


def at_head(path: Path) -> set[str]:
    """The libraries that are loaded together with a module."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


def test_slow_libraries_are_loaded_where_they_are_used() -> None:
    found = {str(path.relative_to(PACKAGE)) for path in SOURCES if at_head(path) & SLOW}
    assert found == ALWAYS_SLOW


def test_no_study_loads_a_module_with_slow_libraries_at_its_start() -> None:
    slow = {"cloister." + name.removesuffix(".py").replace("/", ".") for name in ALWAYS_SLOW}
    files = {
        ".".join(("cloister", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in SOURCES
    }

    def named(path: Path) -> set[str]:
        modules = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                modules |= {str(node.module)} | {f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
        return modules & files.keys()

    waiting, seen = ["cloister.simulation.run"], {"cloister.simulation.run"}
    while waiting:
        for module in named(files[waiting.pop()]) - seen:
            seen.add(module)
            waiting.append(module)
    assert seen & slow == set()


def loaded(program: str) -> set[str]:
    """What of `HEAVY` a fresh interpreter has loaded after a program that ends well."""
    finished = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('loaded:', *sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return HEAVY & set(finished.stdout.rpartition("loaded:")[2].split())


# Run in one interpreter after another statement, and named where something heavy came with it.
LOADS = """
import sys
def check(what):
    found = sorted({heavy!r} & set(sys.modules))
    assert not found, f"{{what}} loads {{found}}"
"""


def test_what_runs_beside_the_training_loads_none_of_it() -> None:
    modules = [
        "cloister",
        "cloister.cli.main",
        "cloister.deployment.processes",
        "cloister.deployment.coordinator.service",
        "cloister.deployment.coordinator.gate",
        "cloister.deployment.coordinator.status",
        "cloister.deployment.site.service",
        "cloister.deployment.site.connectivity",
        "cloister.deployment.site.records",
        "cloister.deployment.site.status",
        "cloister.deployment.flower.commands",
        "cloister.deployment.flower.control",
    ]
    imports = [f"import {module}\ncheck({module!r})\n" for module in modules]
    assert loaded(LOADS.format(heavy=HEAVY) + "".join(imports)) == set()


def test_that_something_heavy_was_loaded_would_be_seen() -> None:
    assert loaded("import pyarrow") >= {"pyarrow"}  # of what is heavy the lightest


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a coordinator, a run, and a site that has joined."""
    root = tmp_path_factory.mktemp("papers")
    now = datetime.now(UTC)
    server = ServerFolder.create(
        root / "hub", ServerConfig(name="hub", address="localhost:9443"), now
    )
    done = server.run("done")
    done.mkdir()
    write_run(
        done, Run(name="done", standing=RunStatus.FINISHED, flower_run=1, sites=("st-marys",))
    )
    (root / "site.toml").write_text(EXAMPLE)
    row = {"text": "chest pain", "label": "cardiology", "patient_id": "1"}
    (root / "records.jsonl").write_text(json.dumps(row))
    begin_ledger(read_site(root / "site.toml"))
    admit(server, read_site(root / "site.toml"), now)
    return root


COMMANDS = [
    "--help",
    "server status hub",
    "server start hub",
    "member invite other --server hub",
    "member list --server hub",
    "run list --server hub",
    "run watch done --server hub",
    "site status site.toml",
    "site policy show site.toml",
    "site studies list site.toml",
    "site start site.toml",
    "site stop site.toml",
]


def test_quick_commands_and_services_load_nothing_heavy(papers: Path) -> None:
    program = f"""
import os, subprocess, types
os.chdir({str(papers)!r})
from cloister.cli.main import run
from cloister.deployment.processes import Supervisor
from cloister.deployment.site import read_apart
Supervisor.run = lambda self: None  # starts nobody
# The records are read by a process of its own, which may load pyarrow.
done = subprocess.CompletedProcess([], 0, "1 record fits", "")
read_apart.subprocess = types.SimpleNamespace(run=lambda *_, **__: done)
for command in {COMMANDS!r}:
    code = run(command.split())
    assert code == 0, (command, code)
    check(command)
"""
    assert loaded(LOADS.format(heavy=HEAVY) + program) == set()


# What a study loads when it first scores, plots or meets an unknown layer: half a second each.
LATE = {"sklearn", "seqeval", "matplotlib", "opacus", "pandas"}


def loaded_with(path: Path) -> list[str]:
    """Names that a module imports when it is loaded: not in functions, not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def file_of(name: str) -> Path | None:
    """The file of a module of this package, given by its own name or by that of something in it."""
    for parts in (name.split(".")[1:], name.split(".")[1:-1]):
        file = PACKAGE.joinpath(*parts).with_suffix(".py")
        if parts and file.is_file():
            return file
    return None


def test_a_simulation_starts_without_libraries_that_it_needs_later() -> None:
    waiting, seen = [PACKAGE / "simulation" / "run.py"], set[Path]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        names = loaded_with(path)
        early = [name for name in names if name.split(".")[0] in LATE]
        assert early == [], f"{path}: import {early} in the function that uses it"
        found = [file_of(name) for name in names if name.startswith("cloister.")]
        waiting += [file for file in found if file is not None and file not in seen]
    assert len(seen) > 100
