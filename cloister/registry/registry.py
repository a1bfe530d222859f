"""A registry of finished models: versions by hash, names, stages, and who promoted what.

registry.json                        the rule (`registry.rule`)
versions/SHA256/adapter/…            the finished adapter, with its card
versions/SHA256/recipe.toml          its run's recipe, with certificates/ beside it
versions/SHA256/lineage.json         written last: without it a version does not count
models/NAME/log/000001.json          who promoted or rolled back what (`registry.log`)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.bounds import listed
from cloister.errors import BadFileError, LedgerError, UsageError
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.files import bad_file
from cloister.json_text import read_json
from cloister.names import is_name
from cloister.registry.lineage import MOST_BYTES, Candidate, read_candidate
from cloister.registry.log import (
    Kind,
    LoggedPromotion,
    StageState,
    append,
    check_person,
    read_log,
    stages,
)
from cloister.registry.rule import PromotionRule, read_rule
from cloister.registry.store import Store, open_store

PRODUCTION = "production"
# Digits of a version that commands show: 48 bits, as in `cloister serve`.
SHOWN = 12
# Fewest digits by which a command accepts a version.
LEAST = 4


@dataclass(frozen=True)
class Promoted:
    """The result of one person's promotion.

    Attributes:
        version: SHA-256 of the version.
        stage: The stage that it was promoted to.
        is_served: Whether it is served there now.
        agreed: The people who have promoted it so far, if more are needed.
        needs: How many people must promote it.
    """

    version: str
    stage: str
    is_served: bool
    agreed: tuple[str, ...]
    needs: int


@dataclass(frozen=True)
class Registry:
    """Reads and writes a registry: its versions, their logs, and which version is served.

    Attributes:
        store: Reads and writes its files.
        place: The folder or URL, as it was given.
    """

    store: Store
    place: str

    def exists(self) -> bool:
        """Whether anything lies at its place, a model or only a rule."""
        return bool(self.store.names(""))

    def models(self) -> list[str]:
        """Returns the names of the models, sorted.

        A folder without an entry is left by a first promotion that failed, as on a full disk.
        """
        store = self.store
        return [
            name
            for name in store.names("models")
            if store.names(f"models/{name}/log") or "head.json" in store.names(f"models/{name}")
        ]

    def rule(self) -> PromotionRule:
        """Returns the rule: how many people must promote, and their keys."""
        return read_rule(self.store)

    def log(self, model: str) -> list[LoggedPromotion]:
        """Returns a model's log, oldest entry first.

        Raises:
            UsageError: There is no such model.
            LedgerError: The log is damaged.
        """
        _check_name(model, "model")
        found = read_log(self.store, model)
        if not found:
            known = listed(self.models()) or "none"
            raise UsageError(f"{model}: no such model in {self.place}; it has {known}")
        return found

    def stages(self, model: str) -> dict[str, StageState]:
        """Returns a model's versions that are served or pending, by stage."""
        return stages(self.log(model), self.rule())

    def current(self, model: str, stage: str = PRODUCTION) -> str:
        """Returns the SHA-256 of the version that is served at a stage.

        Raises:
            UsageError: No version is served there, or there is no such model.
        """
        found = self.stages(model).get(stage, StageState())
        if found.current is None:
            waits = (
                f"; {found.pending[:SHOWN]} was promoted by {', '.join(found.agreed)}, and "
                f"{self.rule().needs} people must"
                if found.pending
                else ""
            )
            raise UsageError(f"{model}: nothing is served at {stage}{waits}")
        return found.current

    def promote(
        self,
        run: str | Path,
        model: str,
        at: datetime,
        *,
        by: str,
        stage: str = PRODUCTION,
        key: Ed25519PrivateKey | None = None,
    ) -> Promoted:
        """Stores a finished run as a version, and records that one person promotes it.

        Args:
            run: A finished run's folder, or an adapter's.
            model: The model's name; its first version creates it.
            at: The time of the promotion.
            by: Name of the person who promotes.
            stage: The stage where the version should be served.
            key: The person's private key, if the registry's rule names approvers.

        Raises:
            UsageError: Another person promoted meanwhile, or a key is needed or not needed.
            RefusedError: The person is not an approver.
            BadFileError: There is no finished adapter, or the registry cannot be written.
            LedgerError: The log is damaged, or the registry has this version with another ε.

        Guarantees:
            The version's files are complete before its first entry is written. If the process ends
            in between, the version served before stays in service.
        """
        _check_name(model, "model")
        _check_name(stage, "stage")
        rule = self.rule()
        check_person(rule, by, key)
        log = read_log(self.store, model)
        candidate = read_candidate(Path(run))
        place = f"versions/{candidate.sha256}"
        if self._is_new(candidate):
            for path, content in candidate.files.items():
                self.store.write(f"{place}/{path}", content)
            self.store.write(f"{place}/lineage.json", json.dumps(candidate.lineage).encode())
        return self._say(log, rule, model, "promote", candidate.sha256, stage, at, by, key)

    def _is_new(self, candidate: Candidate) -> bool:
        """Returns whether the registry lacks this version, or the run that it comes from.

        Raises:
            LedgerError: The registry has it with another study or another ε. The person who
                promotes it now would vouch for facts that they did not see.
        """
        own = candidate.lineage
        try:
            there = self.lineage(candidate.sha256)
        except BadFileError:  # missing, or damaged
            return True
        if own["recipe_sha256"] is None:
            return False
        if there.get("recipe_sha256") is None:  # promoted first as an adapter without its run
            return True
        promises = json.loads(json.dumps(own["promises"]))
        if there["recipe_sha256"] != own["recipe_sha256"] or there.get("promises") != promises:
            raise LedgerError(
                f"version {candidate.sha256[:SHOWN]} in {self.place}: its lineage names another "
                "study or another ε than this run; find out which is right, and restore it"
            )
        return False

    def rollback(
        self,
        model: str,
        at: datetime,
        *,
        by: str,
        stage: str = PRODUCTION,
        key: Ed25519PrivateKey | None = None,
    ) -> Promoted:
        """Records that one person wants the previously served version served again.

        Args:
            model: The model's name.
            at: The time.
            by: Name of the person.
            stage: The stage.
            key: The person's private key, if the registry's rule names approvers.

        Raises:
            UsageError: No other version was served there, or another person promoted meanwhile.
            RefusedError: The person is not an approver.
        """
        rule = self.rule()
        check_person(rule, by, key)
        log = self.log(model)
        served = stages(log, rule).get(stage, StageState()).served
        if len(served) < 2:
            raise UsageError(f"{model}: no other version was served at {stage} before")
        return self._say(log, rule, model, "rollback", served[-2], stage, at, by, key)

    def _say(
        self,
        log: list[LoggedPromotion],
        rule: PromotionRule,
        model: str,
        kind: Kind,
        version: str,
        stage: str,
        at: datetime,
        by: str,
        key: Ed25519PrivateKey | None,
    ) -> Promoted:
        before = stages(log, rule).get(stage, StageState())
        if before.current == version:
            raise UsageError(f"{model}: version {version[:SHOWN]} is served at {stage} already")
        if before.pending == version and by in before.agreed:
            raise UsageError(
                f"{model}: {by} promoted version {version[:SHOWN]} already; {rule.needs} different "
                "people must"
            )
        fields = {
            "model": model,
            "kind": kind,
            "version": version,
            "stage": stage,
            "by": by,
            "at": at.isoformat(timespec="seconds"),
        }
        log = [*log, append(self.store, log, fields, key)]
        after = stages(log, rule)[stage]
        is_served = after.current == version and after.pending is None
        return Promoted(version, stage, is_served, after.agreed or (by,), rule.needs)

    def version(self, model: str, digits: str) -> str:
        """Returns the version of a model whose SHA-256 begins with the given digits.

        Raises:
            UsageError: No version does, or several do.
        """
        known = dict.fromkeys(one.entry.version for one in self.log(model))
        found = [one for one in known if one.startswith(digits)]
        if len(digits) < LEAST or len(found) != 1:
            shown = ", ".join(one[:SHOWN] for one in known)
            raise UsageError(f"{model}: version {digits!r} names {len(found)} of {shown}")
        return found[0]

    def lineage(self, version: str) -> Mapping[str, Any]:
        """Returns where a version comes from (`lineage.json`).

        Raises:
            BadFileError: The lineage is missing or damaged.
        """
        content = self.store.read(f"versions/{version}/lineage.json")
        try:
            if content is None:
                raise ValueError("missing")
            found = read_json(content, most_bytes=MOST_BYTES)
            if found["sha256"] != version:
                raise ValueError("of another version")
        except (ValueError, KeyError, TypeError) as error:
            raise BadFileError(
                f"version {version[:SHOWN]} in {self.place}: its lineage is {error}; restore it, "
                "or promote its run again"
            ) from error
        return dict(found)

    @contextmanager
    def fetched(self, version: str) -> Iterator[Path]:
        """Copies a version's adapter into a temporary folder, which is removed at the end.

        Raises:
            BadFileError: The version is missing, or the copy cannot be written.
            LedgerError: Its files are not those that were promoted: their hash differs.
        """
        with tempfile.TemporaryDirectory(prefix="cloister-version-") as temporary:
            folder = Path(temporary) / "adapter"
            folder.mkdir()
            place = f"versions/{version}/adapter"
            try:
                for name in self.store.names(place):
                    (folder / name).write_bytes(self.store.read(f"{place}/{name}") or b"")
            except OSError as error:
                raise bad_file(error, "written") from error
            if adapter_sha256(adapter_files(folder)) != version:
                raise LedgerError(
                    f"version {version[:SHOWN]} in {self.place}: its files are not those that were "
                    "promoted; it is not loaded: restore them"
                )
            yield folder


def open_registry(place: str | Path) -> Registry:
    """Opens a registry. Nothing is written: the first promotion creates a new registry.

    Args:
        place: A folder, or an fsspec URL.

    Raises:
        UsageError: fsspec cannot open the URL.
        BadFileError: The place is a file.
    """
    return Registry(open_store(str(place)), str(place))


def _check_name(name: str, what: str) -> None:
    if not is_name(name):
        raise UsageError(
            f"{what}: {name!r} given; a name without /, \\ and a leading dot is needed"
        )
