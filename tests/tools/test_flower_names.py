"""Each private name of Flower that we use exists and is listed."""

from pathlib import Path

import pytest

from tools import flower_names
from tools.flower_names import PAGE, Used, missing, private_names


@pytest.fixture(scope="module")
def names() -> list[Used]:
    return private_names()


def test_every_private_name_of_flower_is_there(names: list[Used]) -> None:
    assert [line for used in names for line in missing(used)] == []


def test_the_page_lists_them(names: list[Used]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == flower_names.page(text, names), "run: python tools/flower_names.py"
    assert "`HttpGrid`" in text


def test_what_is_missing_is_named_with_the_files_that_use_it(tmp_path: Path) -> None:
    (tmp_path / "cloister").mkdir()
    (tmp_path / "cloister" / "one.py").write_text(
        "from flwr.app import Message\n"
        "from flwr.app.gone import Lost\n"
        "import flwr.nowhere\n"
        "from flwr.supercore.run import Vanished as V\n"
        "from flwr.common.serde import fab_to_proto\n"
        "from flwr.proto.run_pb2 import GetRunRequest\n"
        "from flwrfake import Other\n"
        "fab_to_proto(fab=1, colour=2)\n"
        "GetRunRequest(run_id=1, weight=2)\n"
    )
    assert [line for used in private_names(tmp_path) for line in missing(used)] == [
        "flwr.app.gone.Lost is missing; used by cloister/one.py",
        "flwr.common.serde.fab_to_proto takes no argument 'colour'; used by cloister/one.py",
        "flwr.nowhere. is missing; used by cloister/one.py",
        "flwr.proto.run_pb2.GetRunRequest takes no argument 'weight'; used by cloister/one.py",
        "flwr.supercore.run.Vanished is missing; used by cloister/one.py",
    ]


def test_an_attribute_that_flower_dropped_is_named(
    names: list[Used], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ("flwr.superlink.grid.http_grid", "HttpGrid")
    monkeypatch.setattr(flower_names, "ATTRIBUTES", {key: ("_client", "_dropped")})
    (used,) = (used for used in names if (used.module, used.name) == key)
    (line,) = missing(used)
    assert "HttpGrid has no attribute '_dropped'; used by cloister/deployment" in line
