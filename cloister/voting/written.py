"""Writes the records that won a study of votes, with their facts, card and metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.canonical import canonical
from cloister.data.outputs import new_file, sha256_of
from cloister.errors import CloisterError
from cloister.export.croissant import Publication
from cloister.export.synthetic_facts import SyntheticFacts
from cloister.export.synthetic_files import Synthesized, shown_base, write_beside
from cloister.export.text_filters import MOST_CHARACTERS, TextFilter
from cloister.fields import whole_table
from cloister.ledger.stated import Stated
from cloister.names import counted
from cloister.privacy.plan import Plan
from cloister.recipe.vote_study import VoteStudy, noise_of_a_count
from cloister.voting.generator import TextGenerator
from cloister.voting.vote_rounds import Voted


def write_records(
    out: Path,
    study: VoteStudy,
    voted: Voted,
    *,
    plans: Mapping[str, Plan],
    promises: Mapping[str, Stated | None],
    alone: Mapping[str, Stated | None],
    vectors: str,
    generator: TextGenerator | None,
    publication: Publication,
    on_content: Callable[[bytes], None] = lambda content: None,
) -> Synthesized:
    """Writes the records without repetitions, and what belongs beside them.

    Args:
        out: A new JSONL file.
        study: The study.
        voted: What its rounds gave.
        plans: Each site's plan.
        promises: What each site's ledger or certificate promises; None: it is not known.
        alone: The same against all other sites together; None: it is the same, or not known.
        vectors: SHA-256 of the base that computed the vectors.
        generator: The generator; None: there was none.
        publication: What the publisher states.
        on_content: Gets the file's bytes before the file appears.

    Raises:
        CloisterError: No record is left.
        BadFileError: A file cannot be written.
    """
    votes = study.votes
    chosen = TextFilter(1, MOST_CHARACTERS, keeps_duplicates=False)
    rows = [one for one in voted.texts if chosen.keeps(one.text, one.label)]
    if not rows:
        left = ", ".join(f"{number:,} {why}" for why, number in chosen.dropped.most_common())
        raise CloisterError(
            f"none of the last round's {counted(len(voted.texts), 'text')} is left ({left}); ask "
            "for more candidates, or name another generator"
        )
    with new_file(out) as (writer, temporary):
        for one in rows:
            writer.add({"text": one.text, "label": one.label}, out.name)
        writer.end()
        facts = SyntheticFacts(
            file=out.name,
            sha256=sha256_of(temporary),
            records=len(rows),
            columns=("text", "label"),
            study=study.recipe.study.name,
            digest=study.digest,
            base="" if votes.generator is None else shown_base(votes.generator),
            base_sha256="" if generator is None else generator.workspace.base_sha256,
            adapter_sha256="",
            public=Path(votes.public or "").name,
            promises=promises,
            sampling=_how(study, plans, vectors),
            dropped=dict(sorted(chosen.dropped.items())),
            created=datetime.now(UTC).date().isoformat(),
            voted={name: voted.counted.get(name, 0) for name in plans},
            alone={site: one for site, one in alone.items() if one is not None},
        )
        on_content(temporary.read_bytes())
        return write_beside(out, facts, publication)


def about_records(study: VoteStudy, vectors: str) -> bytes:
    """Returns the file `cloister.json` of the records: the base of the vectors, and `[votes]`.

    Args:
        study: The study.
        vectors: SHA-256 of the base that computed the vectors.
    """
    about: dict[str, Any] = {"model": {"sha256": vectors}, "votes": whole_table(study.votes)}
    return canonical(about)


def _how(study: VoteStudy, plans: Mapping[str, Plan], vectors: str) -> dict[str, str | int | float]:
    """Returns how the records were made, as the card states it."""
    votes, noise = study.votes, noise_of_a_count(plans)
    base = shown_base(study.recipe.model.base)
    found: dict[str, str | int | float] = {
        "rounds": votes.rounds,
        "candidates of a round": votes.candidates,
        "noise in a count over all sites (standard deviation)": round(noise, 4),
        "taken off every count": round(noise if votes.threshold is None else votes.threshold, 4),
        "vectors": f"{base}, SHA-256 {vectors}",
        "seed": study.recipe.study.seed,
    }
    if votes.generator is not None:
        found |= {
            "variations": f"begin with up to {votes.kept:g} of a text's tokens",
            "most tokens": votes.most_tokens,
            "temperature": votes.temperature,
            "top_p": votes.top_p,
        }
    return found
