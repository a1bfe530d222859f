"""A task or tokenizer that does not fit its base is refused everywhere, without a charge."""

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from transformers import AutoTokenizer

from cloister.cli.main import run
from cloister.deployment.coordinator.deployed import DeployedStudy
from cloister.deployment.site.opened_site import open_for_study
from cloister.deployment.site.records import read_records
from cloister.errors import CloisterError, ModelFileError, UsageError
from cloister.ledger.ledger import Ledger
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, federation
from tests.support.studies import small_assignments

ROOT = Path(__file__).parents[2]


def longer(base: Path) -> list[str]:
    """The tiny BERT has 64 positions."""
    return ["task.max_length=65"]


def with_another_token(base: Path) -> list[str]:
    """The tiny BERT has 26 rows."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["angina"])
    tokenizer.save_pretrained(base)
    return []


def with_padding_of_its_own(base: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(base)
    return []


UNFIT: dict[str, tuple[Callable[[Path], list[str]], type[CloisterError], str]] = {
    "length": (longer, UsageError, "task.max_length: 65 given; the base has 64 positions"),
    "token": (with_another_token, ModelFileError, "has ids up to 26 ('angina')"),
    "padding": (with_padding_of_its_own, ModelFileError, "has ids up to 26 ('<padding>')"),
}


@pytest.fixture(params=["length", "token", pytest.param("padding", marks=pytest.mark.nightly)])
def unfit(request: pytest.FixtureRequest) -> tuple[Callable[[Path], list[str]], type, str]:
    return UNFIT[request.param]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_simulation(
    unfit: tuple[Callable[[Path], list[str]], type[CloisterError], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, error, words = unfit
    small = small_assignments(tmp_path / "study")
    sets = [*small, *spoil(tmp_path / "study" / "base")]
    options = [word for value in sets for word in ("--set", value)]
    out = tmp_path / "run"
    code = run(["simulate", *options, "--no-twin", "--out", str(out)])
    assert code == error.exit_code
    assert words in said(capsys)
    assert list(out.rglob("*.ledger")) == []


def test_scoring(
    unfit: tuple[Callable[[Path], list[str]], type[CloisterError], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An adapter that was moved to another base, or was made before this was refused."""
    spoil, error, words = unfit
    small = small_assignments(tmp_path / "study")
    options = [word for value in small for word in ("--set", value)]
    out = tmp_path / "run"
    assert run(["simulate", *options, "--no-twin", "--out", str(out)]) == 0
    about = out / "adapter" / "cloister.json"
    document = json.loads(about.read_text())
    for assignment in spoil(tmp_path / "study" / "base"):
        key, value = assignment.split("=")
        section, field = key.split(".")
        document[section][field] = int(value)
    about.write_text(json.dumps(document))
    capsys.readouterr()
    test = str(tmp_path / "study" / "test.jsonl")
    assert run(["evaluate", str(out), "--data", test]) == error.exit_code
    assert words in said(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation(tmp_path_factory.mktemp("unfit"), ("east",), epsilon="40.0", noise=0.8) as made:
        yield made


@pytest.fixture
def spoiled(
    made: Federation, unfit: tuple[Callable[[Path], list[str]], type[CloisterError], str]
) -> Iterator[tuple[Federation, list[str]]]:
    """The federation with a base that does not fit, for a while."""
    kept = made.base.with_suffix(".kept")
    shutil.copytree(made.base, kept)
    try:
        yield made, unfit[0](made.base)
    finally:
        shutil.rmtree(made.base)
        kept.rename(made.base)


def test_a_deployed_coordinator(
    spoiled: tuple[Federation, list[str]],
    unfit: tuple[Callable[[Path], list[str]], type[CloisterError], str],
    tmp_path: Path,
) -> None:
    made, assignments = spoiled
    place = RunDirectory.create(tmp_path / "run", made.recipe(1, *assignments))
    with pytest.raises(unfit[1]) as refused:
        DeployedStudy.open(place, {}, dict, Ed25519PrivateKey.generate(), made.server.heads)
    assert unfit[2] in str(refused.value)


def test_a_site(
    spoiled: tuple[Federation, list[str]],
    unfit: tuple[Callable[[Path], list[str]], type[CloisterError], str],
) -> None:
    made, assignments = spoiled
    east = made.sites["east"]
    before = Ledger(east.ledger).head
    with pytest.raises(unfit[1]) as refused:
        open_for_study(east, made.recipe(1, *assignments), read_records(east))
    assert unfit[2] in str(refused.value)
    assert Ledger(east.ledger).head == before


def test_there_is_no_other_way_to_a_network() -> None:
    """`open_workspace` looks; whoever called what it calls would go past it."""
    guarded = {
        "build_network": {"cloister/training/workspace.py"},
        # Copies in other words are made before any study, by a model that learns nothing.
        "load_backbone": {"cloister/models/build.py", "cloister/models/paraphrase.py"},
    }
    found: dict[str, set[str]] = {name: set() for name in guarded}
    for path in (ROOT / "cloister").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not any(name in text for name in guarded):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in guarded:
                    found[name].add(str(path.relative_to(ROOT)))
    assert found == guarded
