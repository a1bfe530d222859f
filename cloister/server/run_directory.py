"""A run's folder: all files of a run, each complete or absent.

recipe.toml        the resolved recipe: every field with its value
proof.json         the machine's proof of the gradients, when it was made, and whether it was kept
                   from an earlier run (simulations)
metrics.jsonl      one line for each closed round
evaluations.jsonl  one line for each private evaluation on held-out units, where the study has some
untrained.json     scores of the untrained adapter on the public sets: round 0
result.json        the results of a finished simulation
start/             the adapter of the finished run with which it began (`server.start`), and the one
                   that public records trained (`server.public_start`)
checkpoint/        the state after the last closed round
adapter/           the result in PEFT format, with its card
ledgers/           the sites' ledgers, and what sites keep beside them (simulations)
personal/          the sites' own adapters, where they keep a part (simulations)
certificates/      the sites' certificates: of a deployment SITE.certificate.json, as each site sent
                   its own; of a simulation also bundle.zip and keys.json, with whole ledgers
                   (`cloister audit certificate`)
data/              records of a study whose data were in memory, for resuming; readable by the owner
                   only
.begun             marks a folder that a run made
.url.json          the URL to which the folder is copied (`server.run_copy`)
copy.json          marks a copy that was fetched from a URL: it is read, and never continued
tensorboard/       if the recipe asks for it
trackers.json      what a tracker was told of the run (`cloister track`)
*.png              plots
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.adapter.wire import decode, digest, encode
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, open_file, write_whole
from cloister.ledger.chain import Head
from cloister.recipe import Recipe, read_run_recipe
from cloister.server.unused_run import MARK, clear_unused
from cloister.strategies.strategy import ServerState

# The folder with records; leave it out of a copy that you pass on.
RECORDS = "data"
# The file of round 0, which has the scores before any training.
UNTRAINED = "untrained.json"
# The message about a folder that is not empty.
TAKEN = (
    "exists already and is not overwritten; choose another folder (--out), or go on with an "
    "unfinished run in it (--resume; cloister.resume in Python)"
)


def _content(folder: Path, name: str) -> bytes:
    """The bytes of a file in a folder; a run's folder may have come from somebody else.

    Raises:
        OSError: It is no regular file, or cannot be read.
        ValueError: The name leads out of the folder.
    """
    if Path(name).name != name:
        raise ValueError(f"{name}: not a name in the folder")
    with open_file(folder / name) as file:
        return file.read()


def is_taken(path: Path) -> bool:
    """Whether a path has something that a new run would overwrite."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


@dataclass(frozen=True)
class RunDirectory:
    """Reads and writes the files in a run's folder.

    Attributes:
        path: Absolute.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunDirectory:
        """Makes a new folder with the recipe in it.

        The rest of a failed first try is deleted if nothing was charged in it.

        Raises:
            UsageError: The folder holds something already.
            BadFileError: It cannot be written.
        """
        path = path.absolute()
        try:
            if is_taken(path) and not (path.is_dir() and clear_unused(path, RECORDS)):
                raise UsageError(f"{path} {TAKEN}")
            path.mkdir(parents=True, exist_ok=True)
            write_whole(path / MARK, b"")
            write_whole(path / "recipe.toml", recipe.to_toml().encode())
        except (OSError, ValueError) as error:
            raise bad_file(error, "written") from error
        return cls(path)

    def state_recipe(self, recipe: Recipe) -> None:
        """Writes the resolved recipe, which the digest covers, once the labels are known from the
        data.

        A run that an earlier version began keeps its file: its digest is computed from that.

        Raises:
            BadFileError: It cannot be written.
        """
        if recipe.begun is not None:
            return
        text = recipe.to_toml().encode()
        try:
            if self.recipe_file.read_bytes() != text:
                write_whole(self.recipe_file, text)
        except OSError as error:
            raise bad_file(error) from error

    @classmethod
    def reopen(cls, path: Path) -> RunDirectory:
        """Opens the folder of an unfinished run.

        Raises:
            UsageError: The folder is not a run's.
        """
        path = path.absolute()
        if not (path / "recipe.toml").is_file():
            raise UsageError(f"{path} is not a run's folder: it has no recipe.toml")
        return cls(path)

    @property
    def recipe_file(self) -> Path:
        """The file that holds the resolved recipe."""
        return self.path / "recipe.toml"

    def recipe(self) -> Recipe:
        """The resolved recipe; a run that an earlier version began keeps that version's digest.

        Raises:
            BadFileError: It is missing or damaged.
            RecipeError: It lacks a field, or has an unknown one.
        """
        return read_run_recipe(self.recipe_file)

    @property
    def result_file(self) -> Path:
        """The file with a finished run's results, as `simulate --json` prints them."""
        return self.path / "result.json"

    @property
    def adapter(self) -> Path:
        """The folder of the released adapter."""
        return self.path / "adapter"

    def ledgers(self) -> dict[str, Path]:
        """The simulated sites' ledgers that are there, in order of their names."""
        return {path.stem: path for path in sorted((self.path / "ledgers").glob("*.ledger"))}

    def ledger(self, site: str) -> Path:
        """Returns the path of a simulated site's ledger."""
        return self.path / "ledgers" / f"{site}.ledger"

    def save_certificate(self, site: str, content: bytes) -> None:
        """Keeps a certificate as a deployed site sent it."""
        folder = self.path / "certificates"
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{site}.certificate.json", content)

    def save_untrained(self, scores: Mapping[str, Mapping[str, float | None]]) -> None:
        """Keeps the scores of the adapter before round 1, by public set."""
        write_whole(self.path / UNTRAINED, json.dumps(scores).encode())

    def untrained(self) -> dict[str, dict[str, float | None]]:
        """The scores of the adapter before round 1, by public set; null for a score that is not
        finite.

        Returns:
            Empty if the version that began the run did not score it.

        Raises:
            BadFileError: The file is damaged.
        """
        file = self.path / UNTRAINED
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            return {name: dict(scores) for name, scores in found.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadFileError(
                f"{file}: damaged ({error}); remove it, or run the study again"
            ) from error

    def scored(self) -> list[dict[str, Any]]:
        """Rounds with their scores, oldest first, for plots; round 0 is the untrained adapter, if
        it was scored. A private evaluation is in the row of its round."""
        untrained = self.untrained()
        private = {row["round"]: {"private_evaluation": row} for row in self.evaluations()}
        rows = [{**row, **private.get(row["round"], {})} for row in self.metrics()]
        return [*([{"round": 0, **untrained}] if untrained else []), *rows]

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a closed round's line."""
        whole = [json.dumps(earlier) + "\n" for earlier in self.metrics()]
        text = "".join([*whole, json.dumps(row) + "\n"])
        write_whole(self.path / "metrics.jsonl", text.encode())

    def append_evaluation(self, row: Mapping[str, Any]) -> None:
        """Adds a private evaluation's line."""
        text = "".join(json.dumps(line) + "\n" for line in [*self.evaluations(), row])
        write_whole(self.path / "evaluations.jsonl", text.encode())

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of all private evaluations, oldest first."""
        return self._lines("evaluations.jsonl")

    def metrics(self) -> list[dict[str, Any]]:
        """All closed rounds' lines, oldest first; a last line that was cut off is left out."""
        return self._lines("metrics.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self.path / name
        if not file.exists():
            return []
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def save(
        self,
        state: ServerState,
        recipe_digest: str,
        heads: Mapping[str, Head] | None = None,
        row: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes a state to disk; a crash at any point leaves this state or the one before.

        Args:
            state: The state after a closed round.
            recipe_digest: Digest of the study's recipe.
            heads: The head of each simulated site's ledger, to notice one that is truncated or
                replaced.
            row: The round's line so far, for a crash before it is written (`complete_metrics`).
        """
        folder = self.path / "checkpoint"
        folder.mkdir(exist_ok=True)
        parts = {"adapter": state.adapter, **state.memory}
        files = {}
        for part, value in parts.items():
            payload = encode(value)
            name = f"round-{state.round:04d}.{part}"
            write_whole(folder / name, payload)
            files[part] = {"file": name, "sha256": digest(payload)}
        latest = {
            "round": state.round,
            **files["adapter"],
            "memory": {part: files[part] for part in state.memory},
            "recipe": recipe_digest,
            "ledgers": {site: asdict(head) for site, head in (heads or {}).items()},
            "row": row,
        }
        write_whole(folder / "latest.json", json.dumps(latest).encode())
        current = {file["file"] for file in files.values()}
        for old in folder.glob("round-*.*"):
            if old.name not in current:
                old.unlink()

    def load(self, start: ServerState, recipe_digest: str) -> ServerState:
        """The last saved state, or `start` where no round was closed.

        Raises:
            UsageError: The run was of another recipe.
            BadFileError: The checkpoint is damaged.
        """
        stored = self._stored()
        if stored is None:
            return start
        entry, payloads = stored
        if entry["recipe"] != recipe_digest or payloads.keys() != {"adapter", *start.memory}:
            raise UsageError(f"{self.path}: its checkpoint is of another recipe; start a new run")
        values = {part: decode(content, start.adapter.shapes) for part, content in payloads.items()}
        return ServerState(values.pop("adapter"), int(entry["round"]), values)

    def last(self) -> ServerState:
        """The adapter after the last closed round, of whatever shapes, without a strategy's memory.

        Raises:
            UsageError: No round was closed.
            BadFileError: The checkpoint is damaged.
            AdapterFormatError: Its adapter is damaged.
        """
        stored = self._stored()
        if stored is None:
            raise UsageError(f"{self.path}: no round was closed, so there is no adapter in it")
        entry, payloads = stored
        return ServerState(decode(payloads["adapter"]), int(entry["round"]))

    def _stored(self) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """The checkpoint's entry and its files' bytes, each of its SHA-256; None: there is none.

        Raises:
            BadFileError: The checkpoint is damaged.
        """
        latest = self.path / "checkpoint" / "latest.json"
        if not latest.exists():
            return None
        try:
            entry = json.loads(latest.read_text(encoding="utf-8"))
            parts = {"adapter": entry, **entry["memory"]}
            payloads = {part: _content(latest.parent, at["file"]) for part, at in parts.items()}
            damaged = [
                at["file"] for part, at in parts.items() if digest(payloads[part]) != at["sha256"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadFileError(f"{latest.parent}: the checkpoint cannot be read") from error
        if damaged:
            raise BadFileError(
                f"{latest.parent / damaged[0]}: damaged (its SHA-256 differs); restore it, or "
                "start a new run"
            )
        return entry, payloads

    def heads(self) -> dict[str, Head]:
        """The head of each simulated site's ledger after the last closed round and its evaluation,
        if there was one.

        Raises:
            BadFileError: The checkpoint is damaged.
        """
        latest = self.path / "checkpoint" / "latest.json"
        if not latest.exists():
            return {}
        try:
            stored = json.loads(latest.read_text(encoding="utf-8"))["ledgers"]
            heads = {str(site): Head(**head) for site, head in stored.items()}
            if any(type(one.seq) is not int or type(one.hash) is not str for one in heads.values()):
                raise TypeError("a head's number or hash is of another type")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadFileError(
                f"{latest}: its heads of ledgers cannot be read; restore it, or start a new run"
            ) from error
        return heads

    def save_heads(self, heads: Mapping[str, Head]) -> None:
        """Replaces the heads of the last saved state: ledgers grew since, by an evaluation.

        Args:
            heads: The head of each simulated site's ledger; empty: sites are elsewhere, and
                nothing is written.
        """
        if not heads:
            return
        latest = self.path / "checkpoint" / "latest.json"
        entry = json.loads(latest.read_text(encoding="utf-8"))
        entry["ledgers"] = {site: asdict(head) for site, head in heads.items()}
        write_whole(latest, json.dumps(entry).encode())

    @property
    def _public_start(self) -> Path:
        return self.path / "start" / "public"

    def save_start(self, payload: bytes) -> None:
        """Keeps the adapter before round 1, as messages have it, where public records trained it.

        Raises:
            BadFileError: It cannot be written.
        """
        try:
            self._public_start.parent.mkdir(exist_ok=True)
            write_whole(self._public_start, payload)
        except OSError as error:
            raise bad_file(error, "written") from error

    def load_start(self) -> bytes | None:
        """The adapter before round 1 as it was kept; None: none was.

        Raises:
            BadFileError: It cannot be read.
        """
        file = self._public_start
        try:
            return file.read_bytes() if file.exists() else None
        except OSError as error:
            raise bad_file(error, "read") from error

    def save_best(self, state: ServerState) -> None:
        """Keeps the adapter of the best validation score so far."""
        folder = self.path / "checkpoint"
        folder.mkdir(exist_ok=True)
        write_whole(folder / "best.adapter", encode(state.adapter))

    def load_best(self, last: ServerState) -> ServerState:
        """The adapter with the best validation score if one was kept, else the last."""
        file = self.path / "checkpoint" / "best.adapter"
        if not file.exists():
            return last
        return ServerState(decode(file.read_bytes(), last.adapter.shapes), last.round)
