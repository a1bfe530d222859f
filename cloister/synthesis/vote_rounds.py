"""The rounds of a study of votes, from public texts to the texts that won.

`OUT.votes/` beside the output keeps what a run needs to go on after an interruption:

    study.json            what is run; another study is not continued
    candidates-NNN.json   the candidates of a round, written before the sites are asked
    ledgers/              the sites' ledgers, each with its key
    certificates/         written at the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.bounds import listed
from cloister.data.json_rows import json_rows
from cloister.errors import AdapterFormatError, BadFileError, DataError, UsageError
from cloister.evidence.bundle import Received
from cloister.files import bad_file, open_file, write_whole
from cloister.ledger.storage import LedgerFile
from cloister.owner_only import FILE
from cloister.protocol.candidates import (
    MOST_BYTES,
    MOST_TEXT,
    CandidateText,
    decode_candidates,
    encode_candidates,
)
from cloister.synthesis.generator import TextGenerator
from cloister.synthesis.resampling import first_candidates, next_candidates
from cloister.synthesis.voters import Voters

# Most texts of a public file; a study has at most 20,000 candidates.
MOST_PUBLIC = 1_000_000


@dataclass(frozen=True)
class Voted:
    """What the rounds gave.

    Attributes:
        texts: The texts after the last round, with their labels.
        received: What each site sent.
    """

    texts: tuple[CandidateText, ...]
    received: tuple[Received, ...]


def read_public(path: Path, labels: Sequence[str]) -> list[CandidateText]:
    """Reads the public texts of round 1.

    Raises:
        DataError: A row has no usable text, or a label that the study does not name.
    """
    found = list[CandidateText]()
    try:
        for row, value in json_rows(path):
            where = f"votes.public: {path}, row {row}"
            if len(found) == MOST_PUBLIC:
                raise DataError(
                    f"votes.public: {path}: more than {MOST_PUBLIC:,} texts; give fewer"
                )
            text, label = value.get("text"), value.get("label")
            if not isinstance(text, str) or not text.strip() or len(text) > MOST_TEXT:
                raise DataError(
                    f"{where}: column text: a text of 1 to {MOST_TEXT:,} characters is needed"
                )
            if not text.isprintable() and any("\ud800" <= one <= "\udfff" for one in text):
                raise DataError(f"{where}: column text has half of a character; correct it")
            if label not in labels:
                raise DataError(
                    f"{where}: column label: one of the study's labels is needed: "
                    f"{listed(list(labels))}"
                )
            found.append(CandidateText(text, str(label)))
    except OSError as error:
        raise bad_file(error, "read") from error
    if not found:
        raise DataError(f"votes.public: {path}: no text in it; give at least one for each label")
    return found


def check_public(
    public: Sequence[CandidateText], labels: Sequence[str], count: int, *, generates: bool
) -> None:
    """Refuses public texts that are too few, before a model is loaded.

    Raises:
        DataError: A label has none; or, without a generator, fewer than its candidates.
    """
    for place, label in enumerate(labels):
        wanted = 1 if generates else count // len(labels) + (place < count % len(labels))
        found = sum(one.label == label for one in public)
        if found < wanted:
            remedy = "" if generates else ", set fewer votes.candidates, or name a votes.generator"
            raise DataError(
                f"votes.public: {found} texts with label {label!r}; at least {wanted} are needed: "
                f"give more{remedy}"
            )


def begin_folder(folder: Path, declared: Mapping[str, Any]) -> None:
    """Begins a run in its folder, or goes on in it.

    Args:
        folder: `OUT.votes`, which exists and is this process's.
        declared: What is run; an interrupted run goes on only if this is the same. What an earlier
            run left is cleared if nothing was charged for it.

    Raises:
        UsageError: It has another study, for which a site was charged.
        BadFileError: It cannot be read or written.
    """
    path = folder / "study.json"
    text = json.dumps(dict(declared), sort_keys=True, indent=1).encode()
    try:
        found = b""
        if path.exists():
            with open_file(path) as file:
                found = file.read(MOST_BYTES)
        if found == text:
            return
        if found and not _cleared(folder):
            raise UsageError(
                f"{folder}: has another study of votes, or the same with other options or another "
                "public file; its sites were charged for that one: give another --out"
            )
        write_whole(path, text, FILE)
    except OSError as error:
        raise bad_file(error, "written") from error


def _cleared(folder: Path) -> bool:
    """Removes ledgers and candidates for which nothing was charged; False: something was."""
    ledgers = [LedgerFile(path) for path in sorted((folder / "ledgers").glob("*.ledger"))]
    begun = [ledger for ledger in ledgers if ledger.is_begun]
    if any(entry.fields["kind"] == "reserve" for one in begun for entry in one.entries()):
        return False
    if (folder / "ledgers").exists():
        shutil.rmtree(folder / "ledgers")
    for kept in folder.glob("candidates-*.json"):
        kept.unlink()
    return True


def run_rounds(
    voters: Voters,
    public: Sequence[CandidateText],
    generator: TextGenerator | None,
    folder: Path,
    on_round: Callable[[int, int], None] = lambda number, sites: None,
) -> Voted:
    """Runs all rounds, or those that an interrupted run has left.

    Args:
        voters: The admitted sites.
        public: The public texts.
        generator: Writes variations; None: there is none.
        folder: Keeps each round's candidates.
        on_round: Gets each round with the number of sites that voted in it.

    Raises:
        CloisterError: No site answered, or one refused.
        BadFileError: A file in the folder is damaged, or cannot be written.
    """
    study, received = voters.study, list[Received]()
    labels, seed, votes = study.recipe.task.labels, study.recipe.study.seed, study.votes
    noise = study.noise_of_a_count(voters.plans)
    threshold = noise if votes.threshold is None else votes.threshold
    texts: list[CandidateText] = []
    for number in range(1, votes.rounds + 1):
        kept = _KeptCandidates(folder / f"candidates-{number:03d}.json", votes.candidates, labels)
        candidates = kept.read()
        if candidates is None and number == 1:
            texts = first_candidates(
                public, labels, votes.candidates, seed=seed, generator=generator
            )
        if candidates is None:
            candidates = kept.write(texts)
        counted = voters.ask(number, candidates)
        received += counted.received
        on_round(number, len(counted.received))
        if kept.follows(number + 1, votes.rounds):
            continue
        texts = next_candidates(
            candidates,
            counted.votes,
            threshold=threshold,
            number=number,
            seed=seed,
            generator=generator,
        )
    return Voted(tuple(texts), tuple(received))


@dataclass(frozen=True)
class _KeptCandidates:
    """The file of a round's candidates."""

    path: Path
    count: int
    labels: Sequence[str]

    def read(self) -> tuple[CandidateText, ...] | None:
        """Returns the candidates that were kept; None: there are none."""
        try:
            with open_file(self.path) as file:
                content = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise bad_file(error, "read") from error
        try:
            return decode_candidates(content, self.count, self.labels)
        except AdapterFormatError as error:
            raise BadFileError(
                f"{self.path}: damaged ({error}); restore it: the sites were asked about it"
            ) from error

    def write(self, texts: Sequence[CandidateText]) -> tuple[CandidateText, ...]:
        """Keeps the candidates before anybody is asked, and returns them as they were kept."""
        content = encode_candidates(texts)
        try:
            write_whole(self.path, content, FILE)
        except OSError as error:
            raise bad_file(error, "written") from error
        return decode_candidates(content, self.count, self.labels)

    def follows(self, number: int, rounds: int) -> bool:
        """Returns whether the candidates of the next round are kept already."""
        return number <= rounds and self.path.with_name(f"candidates-{number:03d}.json").exists()
