"""Reads where a version comes from: its run's recipe, ledger heads, certificates and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from cloister.canonical import json_number
from cloister.errors import BadFileError
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.adapter_folder import adapter_folder, read_released
from cloister.export.own_parts import check_whole
from cloister.fields import as_table
from cloister.files import bad_file
from cloister.json_text import read_json
from cloister.recipe import read_run_recipe

# Longest file that is read, in bytes. A certificate has a few MB at most
# (`evidence.certificate_alone`); a result has a line for each site.
MOST_BYTES = 2**24
CARD = "README.md"
# Ending of a site's own certificate file; a simulation's certificates are in one bundle.
_ENDING = ".certificate.json"


@dataclass(frozen=True)
class Candidate:
    """A finished adapter that can become a version.

    Attributes:
        sha256: Hash of its files without the card, as certificates name it
            (`evidence.fingerprint`).
        files: Contents by path inside the version's folder: the adapter, its card, and its run's
            recipe and certificates.
        lineage: The facts that `cloister model show` prints.
    """

    sha256: str
    files: Mapping[str, bytes]
    lineage: Mapping[str, Any]


def read_candidate(place: Path) -> Candidate:
    """Reads a finished run's folder, or an adapter's.

    Raises:
        UsageError: Each site kept a part of the adapter, and this is what they share.
        BadFileError: There is no finished adapter, one of its files is damaged, or a certificate
            is about another adapter or study.
    """
    folder = adapter_folder(place)
    about = read_released(folder)
    check_whole(folder, about.lora)
    own = adapter_files(folder)
    files = {f"adapter/{name}": content for name, content in own.items()}
    try:
        if (folder / CARD).is_file():
            files[f"adapter/{CARD}"] = (folder / CARD).read_bytes()
        run = folder.parent if (folder.parent / "recipe.toml").is_file() else None
        recipe, study = None, None
        if run is not None and folder.name == "adapter":
            recipe = read_run_recipe(run / "recipe.toml")
            study = recipe.digest()
            files["recipe.toml"] = (run / "recipe.toml").read_bytes()
            held = run / "certificates"
            for file in sorted((*held.glob(f"*{_ENDING}"), *held.glob("bundle.zip"))):
                files[f"certificates/{file.name}"] = file.read_bytes()
        certificates = {
            name.removeprefix("certificates/"): hashlib.sha256(content).hexdigest()
            for name, content in files.items()
            if name.startswith("certificates/")
        }
        _check_certificates(files, adapter_sha256(own), study)
        lineage = {
            "version": 1,
            "sha256": adapter_sha256(own),
            "task": about.task.kind,
            "labels": list(about.task.labels),
            "base": about.model.base,
            "base_sha256": about.model.sha256,
            "recipe_sha256": study,
            "recipe": None if recipe is None else _fields(recipe.sections()),
            "ledgers": {} if run is None else _heads(run, files),
            "certificates": certificates,
            "promises": {} if run is None else _promises(run, files),
            "metrics": {} if run is None else _metrics(run),
            "norms": _norms(own),
        }
        if about.compressed is not None:  # its path is valid only on the machine that compressed it
            lineage["compressed_from"] = asdict(replace(about.compressed, run=None))
    except OSError as error:
        raise bad_file(error, "read") from error
    return Candidate(adapter_sha256(own), files, lineage)


def _fields(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe's fields by path, as JSON values, without the paths of private files."""
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in json.loads(json.dumps(as_table(section))).items()
        if name != "data" or key not in ("train", "test", "validation")
    }


def _stated(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Returns each certificate's fields, by site. `cloister audit verify` checks signatures."""
    found = {}
    for name, content in files.items():
        if not name.endswith(_ENDING):
            continue
        try:
            row = read_json(content, most_bytes=MOST_BYTES)
            fields = read_json(row["body"], most_bytes=MOST_BYTES)
            found[str(fields["site"])] = dict(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise BadFileError(f"{name}: the certificate cannot be read ({error})") from error
    return found


def _check_certificates(files: Mapping[str, bytes], adapter: str, study: str | None) -> None:
    """Refuses certificates whose ε was promised for another adapter or study."""
    for site, fields in _stated(files).items():
        # A site that did not receive the final adapter leaves its hash empty.
        if fields.get("adapter") not in ("", adapter) or fields.get("study") != study:
            raise BadFileError(
                f"certificates: that of {site} is for another adapter or study, so its ε is not "
                "that of this version; put the run's own certificates there"
            )


def _heads(run: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns the head of each site's ledger: from certificates, or a simulation's last round."""
    heads = {site: fields.get("ledger") for site, fields in _stated(files).items()}
    latest = run / "checkpoint" / "latest.json"
    if not heads and latest.is_file():
        heads = dict(_table(latest).get("ledgers") or {})
    return heads


def _promises(run: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Returns the promised ε of each site, with unit, δ and accountant."""
    promises = {site: fields.get("promise") for site, fields in _stated(files).items()}
    result = run / "result.json"
    if not promises and result.is_file():
        promises = {one["name"]: one["promise"] for one in _table(result).get("sites", [])}
    return promises


def _metrics(run: Path) -> dict[str, float | None]:
    """Returns the adapter's scores on the public test set."""
    result, rounds = run / "result.json", run / "metrics.jsonl"
    if result.is_file():
        return dict(_table(result).get("test") or {})
    lines = rounds.read_text(encoding="utf-8").splitlines() if rounds.is_file() else []
    return dict(json.loads(lines[-1]).get("test") or {}) if lines else {}


def _table(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file.read_bytes(), most_bytes=MOST_BYTES)
    except ValueError as error:
        raise BadFileError(f"{file}: damaged ({error}); restore it") from error
    if not isinstance(found, dict):
        raise BadFileError(f"{file}: damaged (not a JSON object); restore it")
    return found


def _norms(files: Mapping[str, bytes]) -> dict[str, float | None]:
    """Returns the L2 norm of each weight tensor; None if it is not finite."""
    norms: dict[str, float | None] = {}
    for name in ("adapter_model.safetensors", "head.safetensors"):
        if name in files:
            try:
                tensors = load(files[name])
            except SafetensorError as error:
                raise BadFileError(f"{name}: damaged ({error})") from error
            for key, tensor in tensors.items():
                norms[key] = json_number(float((tensor.astype("float64") ** 2).sum()) ** 0.5)
    return norms
