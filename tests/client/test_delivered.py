"""A site stores the final adapter complete and for its owner, or refuses it, without a charge."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest, encode
from cloister.cli.main import run
from cloister.client import delivered
from cloister.client.site_file import read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.export.adapter_folder import export
from cloister.ledger.ledger import Ledger
from cloister.protocol.delivery import NOTE, Claim
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.protocol.signed_questions import signed
from cloister.recipe import Recipe, sent_document
from cloister.server.ending import released
from cloister.serving.model import load
from cloister.training.workspace import Workspace
from tests.client.test_differential import LABELS, notes, study
from tests.support.models import tiny_bert
from tests.support.wards import COORDINATOR, Ward

CLAIM = Claim("accuracy", 0.75, 4)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proofs") / "proofs.json"


@pytest.fixture
def ward(bert: Path, proofs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A ward that took part in one round."""
    made = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch, proofs=proofs)
    recipe = study(bert)
    made.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    proofs.write_bytes(made.proofs.read_bytes())
    assert made.ask(recipe, RoundRequest(recipe.digest(), 1, made.adapter)).said[2] is (
        Status.TRAINED
    )
    return made


def workspace_of(ward: Ward) -> Workspace:
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    return admitted[1].workspace


def final(ward: Ward, seed: int = 0) -> bytes:
    """An adapter of the study's shapes."""
    rng = np.random.default_rng(seed)
    shapes = workspace_of(ward).whole.shapes
    return encode(Adapter({name: 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}))


def question(recipe: Recipe, payload: bytes, body: bytes | None = None) -> RoundRequest:
    return RoundRequest(
        recipe.digest(), 4, payload, Step.DELIVER, CLAIM.to_bytes() if body is None else body
    )


def place_of(ward: Ward, recipe: Recipe) -> Path:
    return AgentFolder.of(read_site(ward.folder / "site.toml")).adapters / recipe.digest()


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def why(ward: Ward) -> str:
    return str(ward.agent._folder.refusals()[-1]["why"])


def test_an_adapter_is_kept_and_predicts_as_the_coordinator_s_does(
    ward: Ward, bert: Path, tmp_path: Path
) -> None:
    recipe, ledger = study(bert), Ledger(ward.folder / "ward.ledger")
    head, payload = ledger.head, final(ward)
    assert ward.ask(recipe, question(recipe, payload)).said[:4] == ("ward", 4, Status.READY, 0)
    assert Ledger(ward.folder / "ward.ledger").head == head  # nothing is charged
    place = place_of(ward, recipe)
    assert json.loads((place / NOTE).read_text()) == {
        "study": recipe.digest(),
        "name": "small",
        "sha256": digest(payload),
        "claim": {"metric": "accuracy", "score": 0.75, "rounds": 4},
        "received": json.loads((place / NOTE).read_text())["received"],
    }
    # The same numbers as the coordinator exports.
    workspace = workspace_of(ward)
    adapter = decode(payload, workspace.whole.shapes)
    export(tmp_path / "theirs", workspace, adapter, released(recipe, workspace))
    for name in ("adapter_model.safetensors", "head.safetensors"):
        assert (tmp_path / "theirs" / name).read_bytes() == (place / name).read_bytes()
    texts = ["chest pain", "itchy rash", "knee swollen since monday"]
    found = load(place).predict(texts)
    assert found == load(tmp_path / "theirs").predict(texts)
    assert {one.label for one in found} <= set(LABELS)  # type: ignore[union-attr]


def test_a_site_that_took_no_part_takes_no_adapter(
    bert: Path, proofs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward.open(tmp_path / "idle", notes(), bert, monkeypatch, proofs=proofs)
    recipe = study(bert)
    ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert ward.ask(recipe, question(recipe, final(ward))).said[2] is Status.REFUSED
    assert "took no part in the study" in why(ward)
    assert not place_of(ward, recipe).exists()


def test_only_its_owner_can_read_it_whatever_the_umask(ward: Ward, bert: Path) -> None:
    recipe, before = study(bert), os.umask(0)
    try:
        assert ward.ask(recipe, question(recipe, final(ward))).said[2] is Status.READY
    finally:
        os.umask(before)
    place = place_of(ward, recipe)
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert [path for path in (place, *place.iterdir()) if path.stat().st_mode & 0o077] == []
    assert [path.name for path in place.parent.iterdir()] == [recipe.digest()]


def test_the_same_again_changes_nothing_and_another_is_refused(ward: Ward, bert: Path) -> None:
    recipe, payload = study(bert), final(ward)
    ward.ask(recipe, question(recipe, payload))
    place = place_of(ward, recipe)
    before = contents(place)
    assert ward.ask(recipe, question(recipe, payload)).said[2] is Status.READY
    assert ward.ask(recipe, question(recipe, final(ward, seed=1))).said[2] is Status.REFUSED
    assert "another adapter of this study is stored here" in why(ward)
    assert contents(place) == before


def test_a_link_in_its_place_is_not_followed(ward: Ward, bert: Path, tmp_path: Path) -> None:
    recipe, place = study(bert), place_of(ward, study(bert))
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    assert ward.ask(recipe, question(recipe, final(ward))).said[2] is Status.REFUSED
    assert not (tmp_path / "elsewhere").exists()


def other_shape(ward: Ward) -> bytes:
    whole = workspace_of(ward).whole
    name = next(iter(whole))
    return encode(Adapter({**whole, name: np.zeros((1, 1))}))


def named_by_a_path(ward: Ward) -> bytes:
    whole = workspace_of(ward).whole
    return encode(Adapter({**whole, "../../../site.toml": np.zeros((1, 1))}))


HOSTILE = {
    "empty": lambda ward: b"",
    "a pickle": lambda ward: b"\x80\x04cos\nsystem\n.",
    "cut off": lambda ward: final(ward)[:-1],
    "longer": lambda ward: final(ward) + b"x",
    "damaged": lambda ward: final(ward)[:-1] + b"\x7f",
    "another shape": other_shape,
    "a tensor called by a path": named_by_a_path,
    "fewer tensors": lambda ward: encode(
        workspace_of(ward).whole.select(list(workspace_of(ward).whole)[1:])
    ),
    "too large": lambda ward: b"CLOISTER" + bytes(200_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_adapter_of_the_study_leaves_nothing(name: str, ward: Ward, bert: Path) -> None:
    recipe = study(bert)
    before = sorted(ward.folder.rglob("*"))
    seen = ward.ask(recipe, question(recipe, HOSTILE[name](ward)))
    assert seen.said[:4] == ("ward", 4, Status.REFUSED, 0)
    assert ("max_message_bytes" if name == "too large" else "adapter: ") in why(ward)
    assert not place_of(ward, recipe).parent.exists()
    assert {p.name for p in set(ward.folder.rglob("*")) - set(before)} <= {"refusals.jsonl"}


@pytest.mark.parametrize(
    "body", [b"", b"{}", CLAIM.to_bytes() + b"x", b'{"metric":"../x","score":1,"rounds":1}']
)
def test_what_is_no_claim_is_refused(body: bytes, ward: Ward, bert: Path) -> None:
    recipe = study(bert)
    assert ward.ask(recipe, question(recipe, final(ward), body)).said[2] is Status.REFUSED
    assert not place_of(ward, recipe).exists()


FORGED = {
    "unsigned": lambda one: replace(one, signature=b""),
    "another adapter than was signed": lambda one: replace(one, adapter=one.adapter[:-4] + b"abcd"),
    "another claim than was signed": lambda one: replace(one, body=Claim("f1", 1.0, 4).to_bytes()),
    "another site": lambda one: replace(one, to="clinic"),
}


@pytest.mark.parametrize("name", [*FORGED, "another's key"])
def test_what_the_coordinator_did_not_sign_is_not_kept(name: str, ward: Ward, bert: Path) -> None:
    recipe = study(bert)
    document, asked = sent_document(recipe), question(recipe, final(ward))
    if name in FORGED:
        put = FORGED[name](signed(asked, COORDINATOR, document, to="ward", seen=""))
    else:
        put = signed(asked, Ed25519PrivateKey.generate(), document, to="ward", seen="")
    assert ward.put(document, put).said[:3] == ("", 4, Status.REFUSED)
    assert not place_of(ward, recipe).parent.exists()


def test_an_adapter_of_another_study_is_refused(ward: Ward, bert: Path) -> None:
    """Its document stands beside the question; the digest that is asked for is another's."""
    recipe, other = study(bert), study(bert, "study.seed=7")
    asked = replace(question(recipe, final(ward)), study=other.digest())
    assert ward.ask(recipe, asked).said[2] is Status.REFUSED
    assert not place_of(ward, recipe).parent.exists()


def test_a_site_may_refuse(ward: Ward, bert: Path) -> None:
    recipe, path = study(bert), ward.folder / "site.toml"
    payload = final(ward)
    path.write_text(path.read_text().replace("[site]", "[site]\nkeep_adapters = false"))
    assert ward.ask(recipe, question(recipe, payload)).said[2] is Status.REFUSED
    assert "site.keep_adapters" in why(ward)
    assert not place_of(ward, recipe).parent.exists()


def test_a_disk_that_is_full_leaves_nothing_and_the_next_time_it_is_kept(
    ward: Ward, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, payload = study(bert), final(ward)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(delivered, "write_whole", full)
        assert ward.ask(recipe, question(recipe, payload)).said[2] is Status.REFUSED
    assert "cannot be kept (No space left on device)" in why(ward)
    assert list(place_of(ward, recipe).parent.iterdir()) == []
    assert ward.ask(recipe, question(recipe, payload)).said[2] is Status.READY
    assert load(place_of(ward, recipe)).predict(["fever"])


def test_what_is_answered_follows_from_no_record(
    ward: Ward, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wards of other records say the same of the same adapter."""
    other = Ward.open(tmp_path / "other", notes(13), bert, monkeypatch, proofs=ward.proofs)
    recipe, payload, said = study(bert), final(ward), []
    other.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    other.ask(recipe, RoundRequest(recipe.digest(), 1, other.adapter))
    for one in (ward, other):
        before = one.clock.now
        seen = one.ask(recipe, question(recipe, payload))
        said.append((seen.said, seen.shapes, one.clock.now - before))
    assert said[0] == said[1]


def test_status_says_what_is_there_and_whose_claim_its_score_is(
    ward: Ward, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, path = study(bert), str(ward.folder / "site.toml")
    assert run(["site", "status", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == []
    ward.ask(recipe, question(recipe, final(ward)))
    assert run(["site", "status", path]) == 0
    told = capsys.readouterr().out
    assert f"adapter of study {recipe.digest()[:12]} (small), received" in told
    assert "as the coordinator says: accuracy 0.7500" in told
    place = place_of(ward, recipe)
    assert f"cloister predict {place} --data FILE" in told
    assert run(["predict", str(place), "--data", str(ward.folder / "records.jsonl"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 20
