"""FHIR files become records with patient and text; what is left out is counted."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.config import DataConfig
from cloister.data.fhir import resources as reading
from cloister.data.fhir.labels import LabelPath
from cloister.data.fhir.run import FhirOptions, FhirReport, fhir_file
from cloister.data.load import load
from cloister.data.step_log import log_of
from cloister.errors import CloisterError, DataError, UsageError
from tests.support.examples import tries

MRN = "urn:example:mrn"


def data(text: str | bytes, charset: str = "utf-8") -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode(charset)).decode()


def document(identity: str, patient: Any, text: str = "chest pain", **more: Any) -> dict[str, Any]:
    subject = {"reference": patient} if isinstance(patient, str) else patient
    attachment = {"contentType": "text/plain", "data": data(text)}
    return {
        "resourceType": "DocumentReference",
        "id": identity,
        "status": "current",
        "subject": subject,
        "content": [{"attachment": attachment}],
    } | more


def attached(attachment: dict[str, str]) -> dict[str, Any]:
    return document("d", "Patient/1", content=[{"attachment": attachment}])


def observation(identity: str, patient: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "subject": {"reference": patient},
        "code": {"coding": [{"system": "http://loinc.org", "code": "8716-3", "display": "Signs"}]},
    } | more


def patient(identity: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": identity} | more


def bundle(*resources: dict[str, Any], urls: dict[int, str] | None = None) -> dict[str, Any]:
    entries = [
        {"resource": one} | ({"fullUrl": urls[n]} if urls and n in urls else {})
        for n, one in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def rows_of(folder: Path, *found: Any, **options: Any) -> tuple[list[dict[str, Any]], FhirReport]:
    """Rows and report of resources: each a file of its own."""
    paths = []
    for number, one in enumerate(found):
        paths.append(folder / f"part{number}.json")
        paths[-1].write_text(json.dumps(one))
    out = folder / "out.jsonl"
    report = fhir_file(paths, out, FhirOptions(**options))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    out.unlink()
    log_of(out).unlink()
    return rows, report


def test_a_document_becomes_a_record_that_training_reads(tmp_path: Path) -> None:
    kind = {"coding": [{"system": "http://loinc.org", "code": "18842-5"}]}
    (tmp_path / "b.json").write_text(
        json.dumps(bundle(patient("1"), document("d", "Patient/1", type=kind, date="2024-03-05")))
    )
    out = tmp_path / "notes.jsonl"
    fhir_file([tmp_path / "b.json"], out, FhirOptions(label=LabelPath("type")))
    assert json.loads(out.read_text()) == {
        "text": "chest pain",
        "label": "18842-5",
        "person": "Patient/1",
        "id": "DocumentReference/d",
        "time": "2024-03-05",
    }
    record = load(str(out), "train", "text", DataConfig(train=str(out), test="t", person="person"))
    assert [(r.text, r.label, r.person) for r in record] == [("chest pain", "18842-5", "Patient/1")]  # type: ignore[union-attr]
    log = json.loads(log_of(out).read_text())["steps"][0]
    assert log["command"] == "fhir"
    assert log["source"]["files"][0]["name"] == "b.json"
    assert out.stat().st_mode & 0o077 == 0


def test_lines_and_gzip_are_read_as_bundles_are(tmp_path: Path) -> None:
    lines = [patient("1"), document("a", "Patient/1"), document("b", "Patient/1", "fever")]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    for name, content in {
        "l.ndjson": text.encode(),
        "l.jsonl.gz": gzip.compress(text.encode()),
    }.items():
        (tmp_path / name).write_bytes(content)
        found = [one.resource for one in reading.resources(tmp_path / name)]
        assert found == lines


@pytest.mark.parametrize(
    ("attachment", "text"),
    [
        ({"contentType": "text/plain; charset=GB18030", "data": data("胸痛", "gb18030")}, "胸痛"),
        ({"contentType": "TEXT/PLAIN;charset=latin-1", "data": data("né", "latin-1")}, "né"),
        (
            {
                "contentType": "text/html",
                "data": data("<!DOCTYPE html><title>Note 7</title><p>a &lt; b</p><b>c</b>"),
            },
            "a < b\nc",
        ),
        (
            {"contentType": "text/plain", "data": data("a\n b")[:4] + "\n" + data("a\n b")[4:]},
            "a\n b",
        ),
    ],
)
def test_text_is_decoded_as_its_type_says(
    tmp_path: Path, attachment: dict[str, str], text: str
) -> None:
    rows, report = rows_of(
        tmp_path, document("d", "Patient/1", content=[{"attachment": attachment}])
    )
    assert rows[0]["text"] == text
    assert report.written.total() == 1


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (document("d", "Patient/1", status="entered-in-error"), "not-current"),
        (document("d", "Patient/1", docStatus="entered-in-error"), "not-current"),
        (attached({"contentType": "text/plain", "url": "https://a/b"}), "by-url"),
        (attached({"contentType": "application/pdf", "data": data("x")}), "other-type"),
        (attached({"contentType": "text/plain", "data": "%%%%"}), "damaged"),
        (attached({"contentType": "text/plain", "data": data(b"\xff\xfe\xff")}), "damaged"),
        (attached({"contentType": "text/plain; charset=no", "data": data("x")}), "damaged"),
        (document("d", "Patient/1", " \n"), "no-text"),
        (document("d", {}), "no-patient"),
        (document("d", "Group/1"), "not-a-patient"),
        (document("d", "Patient/"), "not-a-patient"),
        (document("d", "Patient/no id"), "not-a-patient"),
        (document("d", "Patient/" + "1" * 65), "not-a-patient"),
        (attached({"contentType": "text/plain;charset=utf-7", "data": data(b"+2AA-")}), "damaged"),
        (document("d", "urn:uuid:11111111-0000-0000-0000-000000000000"), "patient-missing"),
        (document("d", "#p", contained=[patient("p")]), "contained-patient"),
        (observation("o", "Patient/1", valueQuantity={"value": 3}), "no-text"),
    ],
)
def test_what_becomes_no_record_is_counted_by_its_reason(
    tmp_path: Path, resource: dict[str, Any], reason: str
) -> None:
    rows, report = rows_of(tmp_path, bundle(patient("1"), document("ok", "Patient/1"), resource))
    assert [row["id"] for row in rows] == ["DocumentReference/ok"]
    assert dict(report.left_out) == {reason: 1}


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    by_url = {"contentType": "text/plain", "url": "http://127.0.0.1:1/note"}
    both = [
        {"attachment": by_url},
        {"attachment": {"contentType": "text/plain", "data": data("x")}},
    ]
    rows, _ = rows_of(tmp_path, document("d", "Patient/1", content=both))
    assert rows[0]["text"] == "x"


def test_an_observations_text_is_its_code_value_and_notes(tmp_path: Path) -> None:
    one = observation("o", "Patient/1", valueString="mild", note=[{"text": "since monday"}])
    rows, _ = rows_of(tmp_path, one)
    assert rows[0]["text"] == "Signs\nmild\nsince monday"
    rows, _ = rows_of(tmp_path, one, label=LabelPath("code"))
    # A text that names its label would teach nothing.
    assert (rows[0]["text"], rows[0]["label"]) == ("mild\nsince monday", "8716-3")


def test_a_label_is_one_or_the_resource_is_left_out(tmp_path: Path) -> None:
    two = [{"coding": [{"system": "a", "code": "x"}, {"system": "b", "code": "y"}]}]
    found = bundle(document("1", "Patient/1", category=two), document("2", "Patient/1"))
    with pytest.raises(DataError, match="no record"):
        rows_of(tmp_path, found, label=LabelPath("category"))
    rows, report = rows_of(tmp_path, found, label=LabelPath("category", "b"))
    assert [row["label"] for row in rows] == ["y"]
    assert dict(report.left_out) == {"no-label": 1}
    with pytest.raises(UsageError, match="dots between"):
        LabelPath("a..b")


URN = "urn:uuid:0a0a0a0a-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    "reference",
    ["Patient/1", "Patient/1/_history/4", "https://a.example/fhir/Patient/1", URN, URN.upper()],
)
def test_one_patient_is_one_person_however_it_is_referred_to(
    tmp_path: Path, reference: str
) -> None:
    found = bundle(document("d", reference), patient("1"), urls={1: URN})
    assert rows_of(tmp_path, found)[0][0]["person"] == "Patient/1"


@pytest.mark.parametrize(
    "links", [[("1", "2")], [("1", "2"), ("2", "1")], [("1", "2"), ("2", "3"), ("3", "1")]]
)
def test_linked_patients_are_one_person_in_a_circle_too(
    tmp_path: Path, links: list[tuple[str, str]]
) -> None:
    def link(identity: str) -> list[dict[str, Any]]:
        others = [other for one, other in links if one == identity]
        return [{"other": {"reference": f"Patient/{o}"}, "type": "replaced-by"} for o in others]

    found = [patient(i, link=link(i)) for i in "123"]
    found += [document(f"d{i}", f"Patient/{i}") for i in "123"]
    rows, report = rows_of(tmp_path, bundle(*found))
    linked = {name for pair in links for name in pair}
    expected = [f"Patient/{min(linked) if i in linked else i}" for i in "123"]
    assert [row["person"] for row in rows] == expected
    assert report.persons == len(set(expected))


def test_an_identifier_tells_persons_apart_over_files(tmp_path: Path) -> None:
    def file(identity: str, number: str) -> dict[str, Any]:
        who = patient(identity, identifier=[{"system": MRN, "value": number}])
        return bundle(who, document(f"d{identity}", f"Patient/{identity}"))

    other = document("x", {"identifier": {"system": MRN, "value": "7"}})
    unknown = document("y", "Patient/9")
    rows, report = rows_of(
        tmp_path, file("1", "7"), file("2", "7"), file("3", "8"), other, unknown, system=MRN
    )
    assert [row["person"] for row in rows] == ["7", "7", "8", "7"]
    assert dict(report.left_out) == {"patient-missing": 1}


def test_an_identifier_of_two_patients_names_neither(tmp_path: Path) -> None:
    shared = [{"system": "urn:insurance", "value": "1"}]
    logical = document("x", {"identifier": shared[0]})
    found = bundle(patient("1", identifier=shared), patient("2", identifier=shared), logical)
    with pytest.raises(DataError, match="1 left out"):
        rows_of(tmp_path, found)


def test_bundles_in_bundles_are_opened_and_repeated_resources_left_out(tmp_path: Path) -> None:
    inner = bundle(document("d", "Patient/1"), document("e", "Patient/1"))
    rows, report = rows_of(tmp_path, bundle(document("d", "Patient/1", "first"), bundle(inner)))
    assert [row["text"] for row in rows] == ["first", "chest pain"]
    assert dict(report.left_out) == {"repeated": 1}


def test_whose_record_stays_does_not_depend_on_another_persons(tmp_path: Path) -> None:
    found = [document("d", "Patient/1", "one"), document("d", "Patient/2", "two")]
    both, _ = rows_of(tmp_path, bundle(*found))
    alone, _ = rows_of(tmp_path, bundle(found[1]))
    assert both[1] == alone[0]


def test_a_bundle_of_any_size_is_read_entry_by_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds are lowered, so that small files stand for large ones."""
    import cloister.data.json_buffer as buffer

    for module in (buffer, reading):
        monkeypatch.setattr(module, "MOST_ROW_BYTES", 2000)
    monkeypatch.setattr(buffer, "CHUNK", 64)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(bundle(*(document(str(n), "Patient/1") for n in range(50)))))
    assert path.stat().st_size > 5000
    assert len(list(reading.resources(path))) == 50
    path.write_text(
        json.dumps(bundle(document("1", "Patient/1"), document("2", "Patient/1", "x" * 9000)))
    )
    with pytest.raises(DataError, match=r"entry 2: .*the most that a row may hold"):
        list(reading.resources(path))
    path.write_text(json.dumps({"resourceType": "Basic"} | {f"k{n}": "x" * 100 for n in range(90)}))
    with pytest.raises(DataError, match="resource 1: longer than"):
        list(reading.resources(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("<Bundle/>", "resource 1: no JSON object begins here"),
        ("{}", "no resourceType"),
        ('{"resourceType": "Bundle", "entry": [{"resource": {}}]}', "entry 1: has no resourceType"),
        ('{"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "X"}}', "damaged"),
        ('{"resourceType": "Bundle", "entry": [], "entry": []}', "duplicate key"),
        ('{"resourceType": "Bundle", "resourceType": "Bundle"}', "duplicate key"),
        ('{"resourceType": "B\x00"}', "no valid JSON"),
        ('{"resourceType": ' + "[" * 500, "no valid JSON|deep"),
    ],
)
def test_a_damaged_file_ends_in_one_message_and_leaves_nothing(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        fhir_file([path], tmp_path / "out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json"]


def test_a_file_that_changes_while_it_is_read_makes_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "b.ndjson", tmp_path / "out.jsonl"
    lines = "".join(json.dumps(document(str(n), "Patient/1")) + "\n" for n in range(500))
    path.write_text(lines)

    def change(_: int) -> None:
        path.write_text(lines + " ")

    with pytest.raises(DataError, match="changed while it was read"):
        fhir_file([path], out, FhirOptions(progress=change))
    assert not out.exists()
    assert not log_of(out).exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=tries(60), deadline=None)
@given(st.data())
def test_whatever_an_element_holds_it_is_a_record_a_reason_or_one_message(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fhir")
    one, who = document("d", "Patient/1"), patient("1")
    for resource in (one, who):
        key = data.draw(st.sampled_from([*resource, "link", "identifier", "contained", "type"]))
        resource[key] = data.draw(json_values)
    try:
        rows, report = rows_of(folder, bundle(who, one, document("ok", "Patient/2")))
    except CloisterError as error:
        message = str(error)
    else:
        assert rows[-1]["id"] == "DocumentReference/ok"
        assert report.rows == len(rows)
        return
    assert "part0.json, entry" in message
