"""Fuzzes FHIR files, which hospitals' systems write: bundles, patients and what refers to them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.data.fhir.labels import LabelPath
from cloister.data.fhir.run import FhirOptions, FhirReport, fhir_file
from cloister.data.step_log import log_of
from tests.support.fuzzing import as_json, fuzz, hostile_bytes, must_read, reshaped

BUNDLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "fullUrl": "urn:uuid:1",
            "resource": {
                "resourceType": "Patient",
                "id": "1",
                "identifier": [{"system": "mrn", "value": "7"}],
                "link": [{"other": {"reference": "Patient/1"}, "type": "seealso"}],
            },
        },
        {
            "resource": {
                "resourceType": "DocumentReference",
                "id": "d",
                "status": "current",
                "subject": {"reference": "#p"},
                "contained": [
                    {"resourceType": "Patient", "id": "p", "identifier": [{"system": "mrn"}]},
                    {"resourceType": "Binary", "id": "b", "data": "YQ=="},
                ],
                "content": [{"attachment": {"contentType": "text/html", "url": "#b"}}],
            }
        },
        {
            "resource": {
                "resourceType": "Observation",
                "id": "o",
                "category": [{"coding": [{"system": "a", "code": "x"}]}],
                "subject": {"reference": "Patient/1"},
                "code": {"coding": [{"code": "c", "display": "Pain"}]},
                "valueString": "mild",
                "component": [{"code": {"text": "side"}, "valueString": "left"}],
            }
        },
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fhir")


def read(folder: Path, content: bytes) -> object:
    path, out = folder / "b.json", folder / "out.jsonl"
    path.write_bytes(content)
    options = FhirOptions(label=LabelPath("category"), system="mrn")
    found = must_read(lambda: fhir_file([path], out, options), len(content))
    for made in (out, log_of(out)):
        assert made.exists() == (found is not None)
        made.unlink(missing_ok=True)
    return found


def test_a_sound_one_is_read(folder: Path) -> None:
    found = read(folder, as_json(BUNDLE))
    assert isinstance(found, FhirReport)
    assert (found.rows, found.persons, dict(found.left_out)) == (1, 1, {"contained-patient": 1})


@fuzz
@given(hostile_bytes(json.dumps(BUNDLE).encode()))
@example(b'{"resourceType":"Bundle","entry":[' * 90)
@example(b'{"resourceType":"Bundle","entry":[{"resource":' * 200)
@example(b'{"resourceType":"Bundle","entry":[' + b"{}," * 3000)
@example(b'{"resourceType":"Bundle","entry":{}}')
@example(b"1" * 3000)
def test_bytes(folder: Path, content: bytes) -> None:
    read(folder, content)


@fuzz
@given(st.data())
def test_shapes(folder: Path, data: st.DataObject) -> None:
    read(folder, as_json(data.draw(reshaped(BUNDLE))))
