"""The `[data]` section of a recipe: sources, columns, and how records are dealt to sites."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal

from cloister.bounds import (
    LARGE,
    MOST_NAME,
    MOST_PATH,
    MOST_RECORDS,
    MOST_SITES,
    SMALL,
    Between,
    Items,
    Text,
)
from cloister.data.encodings import known_encoding
from cloister.data.formats import (
    COMPRESSED,
    SEPARATOR_NAMES,
    TEXTS,
    FileForm,
    form_of,
    separator_of,
)
from cloister.data.held_out import LARGEST_SHARE, check_share
from cloister.data.records import RecordKind
from cloister.errors import UsageError
from cloister.fields import LATER, called, check_bounds
from cloister.names import site_names

SYNTHETIC = "synthetic:hospitals"
# The built-in generators, by kind of record.
GENERATED: dict[RecordKind, str] = {
    "text": SYNTHETIC,
    "pairs": SYNTHETIC,
    "labels": "synthetic:referrals",
    "score": "synthetic:answers",
    "items": "synthetic:shops",
    "messages": "synthetic:desks",
}
# The items of `synthetic:shops` with Chinese texts; the customers are the same.
CHINESE_SHOPS = "synthetic:shops-zh"
# The generator for retrieval, whose records are texts with one label, as in classification.
QUESTIONS = "synthetic:questions"
# The column of a pair's second text if none is named.
SECOND = "text_b"

# Parts of a cross-validation: ε grows with their number, and 5 or 10 are usual (Kohavi 1995).
FEWEST_FOLDS, MOST_FOLDS = 2, 20

Partition = Literal["iid", "dirichlet", "quantity", "column", "person"]

Source = Annotated[str, Text(MOST_PATH, least=1)]
Column = Annotated[str, Text(MOST_NAME, least=1)]
# Separator of labels in one cell: one character, or one with blanks around it.
Separator = Annotated[str, Text(4, least=1)]
Records = Annotated[int, Between(1, MOST_RECORDS)]
EncodingName = Annotated[str, Text(MOST_NAME, least=1)]
SeparatorName = Annotated[str, Text(MOST_NAME, least=1)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Records and how a simulation deals them to sites.

    Attributes:
        train: A file (JSONL, JSON, CSV, TSV, CoNLL, Parquet, Arrow; text also with `.gz`), a hub
            id (`owner/name` or `owner/name:config`), or a built-in generator: `synthetic:hospitals`
            (one label; for text pairs, pairs), `synthetic:referrals` (several labels),
            `synthetic:answers` (scores), `synthetic:questions` (retrieval), `synthetic:shops`
            (people's items), `synthetic:desks` (chats and preferences). Absent: the generator for
            the task.
        test: The public test set, in the same forms. It may be absent if `train` has a test set of
            its own (hub ids and generators), and in a study with private evaluations
            (`privacy.evaluation_rounds`), whose scores are then the sites' estimates alone.
        validation: A public validation set, for early stopping. Absent: none.
        old_test: The public test set of an earlier study. It is scored before round 1 and with the
            other sets, so that a study that begins with a finished run's adapter (`--from`) shows
            what it forgets. Absent: none.
        text: Column of the text; for text pairs, of the first text.
        text_b: Column of the second text of a pair. Absent: `text_b`.
        label: Column of the text's label.
        tokens: Column of a sentence's words, as a list.
        tags: Column of the words' tags, as a list.
        messages: Column of a conversation.
        site: Column of `train` that names the site, for `partition = "column"`.
        person: Column of `train` that names the person. Absent: none. Public sets need none.
        sites: Number of sites in a simulation.
        partition: How a simulation distributes records to sites. `iid`: at random. `dirichlet`:
            each site's shares of labels are drawn from a Dirichlet distribution (Hsu et al. 2019,
            arXiv:1909.06335). `quantity`: the sites' sizes are drawn from one. `column`: by the
            column `site`. `person`: all records of a person go to one site.
        alpha: Concentration of `dirichlet` and `quantity`: a smaller value gives more unequal
            sites.
        public_records: The number of records that a site declares in public; one number for all
            sites, or one for each in the order of their names. It sets the sample rate and the
            steps. The true number is private: with a sample rate computed from it, the scale of
            the noise alone would tell neighbouring data sets apart.
        labels: Column of a text's labels, as a list. Absent: `labels`.
        label_separator: Separates several labels in one cell of text, as in a CSV file (`";"`).
            Absent: the column must have lists.
        score: Column of a text's score. Absent: `score`.
        items: Column of a person's items, oldest first: a list of ids, or a text of ids separated
            by spaces. Absent: `items`.
        encoding: Encoding of `train`, and of public sets with the same file ending: `gb18030`,
            `latin-1`, `utf-16`, …. Absent: UTF-8, which public sets with another ending always
            have.
        fold: For simulations. `2/5` splits `train` into five parts and uses the second as the test
            set; `test` is not read. Units are assigned to parts by the study's seed.
        public: A file of public records, in the form of `test`, on which the coordinator trains the
            adapter before round 1 (`training.public_steps`). No site takes part, so it costs no ε.
            It must have no record of `test` or `validation`, nor nearly one. Absent: none.
        public_sha256: SHA-256 of `public`, which the coordinator fills in.
        public_count: Number of records in `public`, which the coordinator fills in.
        separator: Separator of cells in a CSV or TSV, for the same files as `encoding`: `comma`,
            `semicolon`, `tab`, `bar` or a character. Absent: the one that the file's ending
            implies.
        held_out_share: For simulations: the share of each site's units that is not trained on,
            chosen by a hash of the unit and the study's seed, for `cloister evaluate RUN
            --held-out`. `public_records` counts these units too. Absent: none. An institution
            declares its own share in `site.toml`.
    """

    train: Source = field(default=SYNTHETIC, metadata=called("file path dataset train_file"))
    test: Source | None = None
    validation: Source | None = None
    old_test: Source | None = field(default=None, metadata=LATER)
    text: Column = field(default="text", metadata=called("text_column texts"))
    text_b: Column | None = field(
        default=None, metadata={**LATER, **called("text2 sentence2 hypothesis answer text_pair")}
    )
    label: Column = field(default="label", metadata=called("label_column target"))
    tokens: Column = "tokens"
    tags: Column = "tags"
    messages: Column = "messages"
    site: Column = field(default="site", metadata=called("institution site_column"))
    person: Column | None = field(
        default=None, metadata=called("user user_id patient person_column group")
    )
    sites: Annotated[int, Between(1, MOST_SITES)] = field(
        default=4, metadata=called("clients num_sites num_clients")
    )
    partition: Partition = "column"
    # The usual strongly skewed setting of the literature.
    alpha: Annotated[float, Between(SMALL, LARGE)] = 0.3
    public_records: Records | Annotated[tuple[Records, ...], Items(MOST_SITES)] = field(
        default=1200, metadata=called("records num_records records_per_site")
    )
    labels: Column | None = field(
        default=None, metadata={**LATER, **called("labels_column targets multi_label")}
    )
    label_separator: Separator | None = field(
        default=None, metadata={**LATER, **called("labels_separator label_delimiter")}
    )
    score: Column | None = field(
        default=None, metadata={**LATER, **called("score_column grade mark")}
    )
    items: Column | None = field(
        default=None, metadata={**LATER, **called("items_column history sequence item_ids")}
    )
    encoding: EncodingName | None = field(default=None, metadata={**LATER, **called("charset")})
    separator: SeparatorName | None = field(
        default=None, metadata={**LATER, **called("sep delimiter")}
    )
    fold: Annotated[str, Text(MOST_NAME, least=1)] | None = field(default=None, metadata=LATER)
    public: Source | None = field(default=None, metadata={**LATER, **called("public_data")})
    public_sha256: Annotated[str, Text(64)] | None = field(default=None, metadata=LATER)
    public_count: Records | None = field(default=None, metadata=LATER)
    held_out_share: Annotated[float, Between(SMALL, LARGEST_SHARE)] | None = field(
        default=None, metadata=LATER
    )

    @property
    def second(self) -> str:
        """Returns the column of a pair's second text."""
        return self.text_b or SECOND

    @property
    def site_names(self) -> tuple[str, ...]:
        """Returns the simulated sites' names, in order, before any record is read.

        With `partition = "column"` only the records name the sites: their places stand for them.
        """
        if self.partition == "column":
            places = range(1, self.sites + 1)
            return tuple(f"site {place} of {self.sites} by name" for place in places)
        return tuple(site_names(self.sites))

    @property
    def test_source(self) -> str | None:
        """Returns where public test records come from; None: there are none.

        Without `test` it is the test split of a set that is no file: the records of a file are
        private, and scores are public.
        """
        if self.test is None and form_of(self.train) is not None:
            return None
        return self.test or self.train

    def __post_init__(self) -> None:
        check_bounds(self)
        check_form(self.encoding, self.separator)
        self.form(self.train)
        if self.fold is not None and fold_of(self.fold) is None:
            raise UsageError(
                f"fold: {self.fold!r} given; PART/PARTS is needed, from 1/{FEWEST_FOLDS} to "
                f"{MOST_FOLDS}/{MOST_FOLDS}"
            )
        for name in ("test", "validation", "old_test"):
            public = getattr(self, name)
            if public == self.train and form_of(self.train) is not None:
                raise UsageError(
                    f"{name}: the training file {public} given; scores on private records would "
                    "be releases outside of the budget: give a public set"
                )
        if self.public is not None and form_of(self.public) is None:
            raise UsageError(
                f"public: {self.public} given; a file on the coordinator's machine is needed, "
                "whose hash the study states"
            )
        if self.public is not None and self.public == self.train:
            raise UsageError(
                f"public: the training file {self.public} given; what is trained on it without "
                "noise tells of private records: give a public file"
            )
        if self.public is None and (self.public_sha256, self.public_count) != (None, None):
            raise UsageError(
                "public_sha256, public_count: given without public; name the file, or leave them "
                "out"
            )
        if self.public_records == ():
            raise UsageError("public_records: an empty list given; one number per site is needed")
        if self.held_out_share is not None:
            every = self.public_records
            check_share(self.held_out_share, min(every) if isinstance(every, tuple) else every)

    @property
    def labels_column(self) -> str:
        """Returns the column of a text's labels."""
        return self.labels or "labels"

    @property
    def score_column(self) -> str:
        """Returns the column of a text's score."""
        return self.score or "score"

    @property
    def items_column(self) -> str:
        """Returns the column of a person's items."""
        return self.items or "items"

    def form(self, source: str) -> FileForm | None:
        """Returns the form of a source's file, from its ending and this section.

        Args:
            source: `train`, or a public set.

        Returns:
            The form; None: by its ending the source is not a data file.

        Raises:
            UsageError: An encoding or separator is declared, and `train` is not a text file or CSV.
        """
        return declared_form(source, self.train, self.encoding, self.separator)


def fold_of(written: str) -> tuple[int, int] | None:
    """Returns part (from 1) and number of parts of a text such as `2/5`; None: it is not valid."""
    part, _, parts = written.partition("/")
    if not all(
        number.isascii() and number.isdigit() and len(number) < 4 for number in (part, parts)
    ):
        return None
    fits = FEWEST_FOLDS <= int(parts) <= MOST_FOLDS and 1 <= int(part) <= int(parts)
    return (int(part), int(parts)) if fits else None


def check_form(encoding: str | None, separator: str | None) -> None:
    """Refuses an unknown encoding or separator.

    Raises:
        UsageError: One is unknown; the message begins with the field's name.
    """
    if encoding is not None:
        known_encoding(encoding, "encoding:")
    if separator is not None and separator_of(separator) is None:
        raise UsageError(
            f"separator: {separator!r} given; one character is needed, or one of "
            f"{', '.join(SEPARATOR_NAMES)}"
        )


def declared_form(
    source: str, train: str, encoding: str | None, separator: str | None
) -> FileForm | None:
    """Returns the form of a file whose encoding and separator are declared.

    Args:
        source: The file.
        train: The file that the declaration is about; it holds for other files with its ending too.
        encoding: The declared encoding; None: UTF-8.
        separator: The declared separator; None: the ending decides.

    Raises:
        UsageError: `train` is not a file, or its format has no encoding or separator.
    """
    form = form_of(source)
    if encoding is None and separator is None:
        return form
    if form is None:
        if source == train:
            what = "encoding" if encoding is not None else "separator"
            raise UsageError(f"{what}: given, but {train} is not a text file; leave it out")
        return None
    if _ending(source) != _ending(train):
        return form
    if encoding is not None:
        if form.kind not in TEXTS:
            raise UsageError(
                f"encoding: {encoding} given, but {train} is {form.kind}; leave it out"
            )
        form = dataclasses.replace(form, encoding=known_encoding(encoding, "encoding:"))
    if separator is not None:
        if form.kind != "csv":
            raise UsageError(
                f"separator: {separator!r} given, but {train} is not a CSV or TSV; leave it out"
            )
        form = dataclasses.replace(form, separator=separator_of(separator) or form.separator)
    return form


def _ending(source: str) -> str:
    """Returns a file's ending, without that of its compression."""
    return (
        "".join(PurePath(source.lower()).suffixes[-2:]).removesuffix(COMPRESSED).rpartition(".")[2]
    )
