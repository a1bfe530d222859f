"""Synthetic records without training at sites: public texts, chosen by private votes.

Runs a study of votes in this process, and writes the records with their facts, card, metadata and
the sites' certificates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.data.outputs import check_new, sha256_of
from cloister.errors import RefusedError, UsageError
from cloister.evidence.bundle import Bundle, write_bundle
from cloister.evidence.fingerprint import adapter_sha256
from cloister.export.croissant import Publication
from cloister.export.synthetic_files import Synthesized
from cloister.files import bad_file, write_whole
from cloister.ledger.certificate import certify
from cloister.ledger.ledger import key_file, now
from cloister.ledger.signing import load_key
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import Verdict, verify
from cloister.owner_only import private_folder
from cloister.protocol.candidates import CandidateText
from cloister.recipe.private_file import refuse_private_file, training_records
from cloister.recipe.vote_study import VoteStudy, read_vote_study
from cloister.server.unused_run import held
from cloister.synthesis.voters import Voters, open_voters
from cloister.synthesis.votes_folder import begin_folder
from cloister.voting.first_candidates import public_texts
from cloister.voting.generator import TextGenerator, open_generator
from cloister.voting.vote_rounds import Voted, run_rounds
from cloister.voting.written import about_records, write_records


@dataclass(frozen=True)
class VoteProgress:
    """What a run tells while it runs.

    Attributes:
        on_stage: Gets the name of each stage.
        on_note: Gets what should stay visible.
        on_round: Gets each round with the number of sites that voted.
    """

    on_stage: Callable[[str], None] = lambda stage: None
    on_note: Callable[[str], None] = lambda note: None
    on_round: Callable[[int, int], None] = lambda number, sites: None


def synthesize_by_votes(
    file: Path,
    out: Path,
    *,
    publication: Publication | None = None,
    progress: VoteProgress | None = None,
) -> Synthesized:
    """Runs a study of votes and writes its records; an interrupted run is continued.

    Args:
        file: The study (TOML).
        out: A new JSONL file; `NAME.votes/` beside it keeps the run.
        publication: What its publisher states; None: nothing.
        progress: What is told meanwhile.

    Raises:
        UsageError: The study or an option cannot be; nothing was charged.
        BudgetError: A site's budget does not cover all rounds; nothing was charged.
        RefusedError: The public file is the private one; nothing was charged.
        CloisterError: Any other error; what was charged stays charged, and the same command goes
            on.

    Guarantees:
        The records are a function of the public file, the public generator and the noised votes.
        Votes are computed by the sites alone, after each charge. Whether a run begins at all is the
        exception, as the user who starts it has the records: it is refused where a public text is
        that of a private record, or where a record cannot vote, and no ε covers that refusal.
    """
    progress = progress or VoteProgress()
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; records are written to a new .jsonl file")
    check_new(out)
    study = read_vote_study(file)
    if study.recipe.has_stand_in:
        raise UsageError(
            "data.train: missing; name the file of the records that vote. Connected sites have "
            "their own: cloister run start"
        )
    public_file = Path(study.votes.public or "").expanduser()
    public = public_texts(study)
    _refuse_private(study, public_file, public)
    folder = out.with_name(f"{out.stem}.votes")
    declared = {"study": study.digest, "public": sha256_of(public_file), "out": out.name}
    try:
        private_folder(folder)
    except OSError as error:
        raise bad_file(error, "written") from error
    with held(folder):
        begin_folder(folder, declared)
        progress.on_stage("loading records and base")
        voters = open_voters(study, folder / "ledgers", progress.on_note)
        if study.votes.generator is not None:
            progress.on_stage("loading the generator")
        generator = open_generator(
            study.votes, study.recipe.study.seed, study.recipe.machine.device
        )
        progress.on_stage("asking for votes")
        voted = run_rounds(
            study,
            voters.ask,
            public,
            generator,
            folder,
            lambda number, counted: progress.on_round(number, counted.sites),
        )
        progress.on_stage("writing records")
        return _written(voters, voted, generator, out, folder, publication or Publication())


def _refuse_private(study: VoteStudy, path: Path, public: Sequence[CandidateText]) -> None:
    """Refuses the private file as the public one, under any name, and texts of private records.

    Raises:
        RefusedError: It is, or has one.
    """
    refuse_private_file(study.recipe, path, "votes.public")
    private = {getattr(record, "text", None) for record in training_records(study.recipe)}
    shared = [number for number, one in enumerate(public, 1) if one.text in private]
    if shared:
        raise RefusedError(
            f"votes.public: {len(shared)} of {len(public)} texts are those of private records in "
            f"{study.recipe.data.train}; the first is text {shared[0]}. Every candidate may be "
            "published: take them out of the public file"
        )


def _written(
    voters: Voters,
    voted: Voted,
    generator: TextGenerator | None,
    out: Path,
    folder: Path,
    publication: Publication,
) -> Synthesized:
    """Writes the records with what belongs beside them, and the certificates."""
    verdicts = _verdicts(voters)
    return write_records(
        out,
        voters.study,
        voted,
        plans=voters.plans,
        promises={name: one.promise for name, one in verdicts.items()},
        alone={name: one.promise_alone for name, one in verdicts.items()},
        vectors=voters.workspace.base_sha256,
        generator=generator,
        publication=publication,
        on_content=lambda content: _certify(
            voters, voted, out.name, content, folder / "certificates"
        ),
    )


def _verdicts(voters: Voters) -> dict[str, Verdict]:
    """Returns what each site's ledger says, verified from its entries."""
    return {
        name: verify(LedgerFile(path).entries(), str(path)) for name, path in voters.ledgers.items()
    }


def _certify(voters: Voters, voted: Voted, name: str, content: bytes, folder: Path) -> None:
    """Writes the sites' certificates, their keys, and a bundle of both with the records.

    Raises:
        BadFileError: A file cannot be written.
        LedgerError: A ledger is not valid.
    """
    base = voters.workspace.base_sha256
    files = {"cloister.json": about_records(voters.study, base), name: content}
    evidence = {
        site: certify(
            LedgerFile(path).entries(),
            voters.study.digest,
            site=site,
            base=base,
            adapter=adapter_sha256(files),
            key=load_key(key_file(path)),
            time=now(),
        )
        for site, path in voters.ledgers.items()
    }
    keys = {site: one.fields["key"] for site, one in evidence.items()}
    try:
        private_folder(folder)
        write_whole(folder / "keys.json", json.dumps(keys, indent=2).encode())
    except OSError as error:
        raise bad_file(error, "written") from error
    write_bundle(folder / "bundle.zip", Bundle(evidence, files, voted.received))
