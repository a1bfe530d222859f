"""The files of a round of votes at its coordinator: its candidates, and the noised counts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloister.canonical import canonical
from cloister.errors import AdapterFormatError, BadFileError
from cloister.evidence.bundle import MOST_RECEIVED, Received
from cloister.files import bad_file, open_file, write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE
from cloister.privacy.noised_ratio import Floats
from cloister.protocol.candidates import (
    MOST_BYTES,
    CandidateText,
    decode_candidates,
    encode_candidates,
)


@dataclass(frozen=True)
class Counted:
    """The votes of a round over the sites that answered.

    Attributes:
        votes: The sum of their noised histograms, [K].
        noise: The standard deviation of the noise in a count.
        received: What each site sent; a site whose round was interrupted sent nothing. Where the
            noise is shared, sites whose masked counts are in the sum, or came without one.
        sites: Number of sites whose votes are in the sum; 0: there is no sum.
    """

    votes: Floats
    noise: float
    received: tuple[Received, ...]
    sites: int


@dataclass(frozen=True)
class KeptRound:
    """A round's files.

    Attributes:
        folder: The run's.
        number: The round.
        count: Candidates of the round.
        labels: The study's.
    """

    folder: Path
    number: int
    count: int
    labels: Sequence[str]

    @property
    def _candidates(self) -> Path:
        return self.folder / f"candidates-{self.number:03d}.json"

    @property
    def _votes(self) -> Path:
        return self.folder / f"votes-{self.number:03d}.json"

    def candidates(self) -> tuple[CandidateText, ...] | None:
        """Returns the candidates that were kept; None: there are none.

        Raises:
            BadFileError: The file is damaged.
        """
        content = _content(self._candidates, MOST_BYTES)
        if content is None:
            return None
        try:
            return decode_candidates(content, self.count, self.labels)
        except AdapterFormatError as error:
            raise _damaged(self._candidates, error) from error

    def keep_candidates(self, texts: Sequence[CandidateText]) -> tuple[CandidateText, ...]:
        """Keeps the candidates before anybody is asked, and returns them as they were kept."""
        content = encode_candidates(texts)
        _write(self._candidates, content)
        return decode_candidates(content, self.count, self.labels)

    def counted(self) -> Counted | None:
        """Returns the counts that were kept; None: the sites are still to be asked.

        Raises:
            BadFileError: The file is damaged, or of other candidates.
        """
        content = _content(self._votes, MOST_RECEIVED)
        if content is None:
            return None
        try:
            fields: dict[str, Any] = read_json(content, most_bytes=MOST_RECEIVED)
            votes = np.array(fields["votes"], dtype=np.float64)
            noise, sites = float(fields["noise"]), int(fields["sites"])
            if votes.shape != (self.count,) or not math.isfinite(noise + float(votes.sum())):
                raise ValueError(f"{votes.shape} counts")
            if fields["candidates"] != self._asked():
                raise ValueError("counts of other candidates")
            received = tuple(Received.of(row) for row in fields["received"])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise _damaged(self._votes, error) from error
        return Counted(votes, noise, received, sites)

    def keep_counted(self, counted: Counted) -> None:
        """Keeps a round's counts: it is not asked again."""
        document = {
            "candidates": self._asked(),
            "votes": [float(count) for count in counted.votes],
            "noise": counted.noise,
            "sites": counted.sites,
            "received": [one.row() for one in counted.received],
        }
        _write(self._votes, canonical(document))

    def is_followed(self, rounds: int) -> bool:
        """Returns whether the candidates of the next round are kept already."""
        after = KeptRound(self.folder, self.number + 1, self.count, self.labels)
        return after.number <= rounds and after._candidates.exists()

    def _asked(self) -> str:
        content = _content(self._candidates, MOST_BYTES)
        return hashlib.sha256(content or b"").hexdigest()


def _content(path: Path, most: int) -> bytes | None:
    try:
        with open_file(path) as file:
            return file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise bad_file(error, "read") from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content, FILE)
    except OSError as error:
        raise bad_file(error, "written") from error


def _damaged(path: Path, error: Exception) -> BadFileError:
    return BadFileError(f"{path}: damaged ({error}); restore it: the sites were asked about it")
