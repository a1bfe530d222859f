"""Defines the sections of a watch file: source, reference, thresholds, topics and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cloister.bounds import LARGE, MOST_NAME, MOST_PATH, Between, Items, Text
from cloister.errors import UsageError
from cloister.fields import check_bounds
from cloister.names import is_name
from cloister.tasks.config import LONGEST_LABEL

Column = Annotated[str, Text(MOST_NAME, least=1)]
Place = Annotated[str, Text(MOST_PATH, least=1)]
# Rows of a window: with fewer than 50 the chi-square and KS distributions are far from exact (ten
# categories with the usual five expected counts); 10,000 rows need a state of some megabytes.
WindowRows = Annotated[int, Between(50, 10_000)]
Share = Annotated[float, Between(1e-9, 0.5)]
# Checks in a year, one per minute.
Looks = Annotated[int, Between(1, 525_600)]
# From a second to a year.
Seconds = Annotated[float, Between(1.0, 31_536_000.0)]
# Most steps that surges remember, so that the state has at most some megabytes: a month has 2,976
# quarters of an hour.
MOST_STEPS = 10_000
# Most addresses of each kind, terms of a topic, and phrases of a refusal.
MOST_ADDRESSES, MOST_TERMS = 20, 200
# Phrases of a reply that refuses to answer, for files that name none.
REFUSALS = ("I cannot", "I can't", "I'm sorry", "cannot answer", "我不能", "我无法", "无法回答")


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """The `[watch]` section: the watch's name and folder.

    Attributes:
        name: Name in alerts, in metrics and on the page.
        folder: Folder of the state, the page and `report.json`; readable by its owner only.
    """

    name: Annotated[str, Text(MOST_NAME, least=1)]
    folder: Place

    def __post_init__(self) -> None:
        """Refuses a name that no file can have, because it becomes a metric's label."""
        check_bounds(self)
        if not is_name(self.name):
            raise UsageError("name: one line of letters, digits and signs without / is needed")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The `[source]` section: where predictions come from, and their own columns.

    Attributes:
        kind: `file` follows a file that grows; `stdin` reads lines; `http` takes them by POST at
            the address in `[http]`.
        file: For `file`: one JSON object per line, as `cloister predict --out` writes them.
        text: Column of the input's text, for its length and for topics by terms.
        time: Column of a row's time: ISO 8601, or seconds since 1970. Absent: the time of arrival.
        embedding: Column of a list of numbers, such as a sentence encoder's vector.
        encoder: A base that encodes sentences, or a run of retrieval: it encodes the texts of rows
            without an embedding. Absent: nothing is encoded, and no network is loaded.
    """

    kind: Literal["file", "stdin", "http"] = "file"
    file: Place | None = None
    text: Column = "text"
    time: Column | None = None
    embedding: Column = "embedding"
    encoder: Place | None = None

    def __post_init__(self) -> None:
        """Refuses a file source without a file, and a file for another source."""
        check_bounds(self)
        if (self.kind == "file") != (self.file is not None):
            raise UsageError('file: needed for kind = "file", and for no other')


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """The `[reference]` section: predictions from a time without problems.

    Attributes:
        file: A file in the stream's form; absent: drift is not measured.
    """

    file: Place | None = None


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """The `[drift]` section. A feature drifts if its PSI is high and chance does not explain it.

    Attributes:
        window_rows: Rows of a window; each window is compared with the reference once.
        false_alarm: The probability of at least one false finding in `horizon` windows, for all
            features together (Bonferroni, which also holds for dependent features and for windows
            that share one reference).
        horizon: Windows over which `false_alarm` is bounded.
        psi_alert: An alert begins at this PSI. 0.25 and 0.1 are the convention of credit scoring
            (Siddiqi 2006, Credit Risk Scorecards).
        psi_calm: An alert ends below this PSI.
        calm_windows: Windows in a row below `psi_calm` after which an alert ends.
        gap_seconds: Least time between two alerts of one feature.
        projections: Number of random directions on which embeddings are compared.
        seed: The seed of these directions.
        refusals: For chats: phrases of a reply that refuses to answer.
    """

    window_rows: WindowRows = 500
    false_alarm: Share = 0.05
    horizon: Looks = 365
    psi_alert: Annotated[float, Between(0.01, 10.0)] = 0.25
    psi_calm: Annotated[float, Between(0.001, 10.0)] = 0.1
    calm_windows: Annotated[int, Between(1, 1000)] = 1
    gap_seconds: Seconds = 3600.0
    projections: Annotated[int, Between(1, 64)] = 8
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    refusals: Annotated[tuple[Annotated[str, Text(200, least=1)], ...], Items(MOST_TERMS)] = (
        REFUSALS
    )

    def __post_init__(self) -> None:
        """Refuses thresholds in the wrong order."""
        check_bounds(self)
        if self.psi_calm > self.psi_alert:
            raise UsageError(
                f"psi_calm: {self.psi_calm:g} given; at most psi_alert ({self.psi_alert:g}) is "
                "needed"
            )


@dataclass(frozen=True, kw_only=True)
class SurgesConfig:
    """The `[surges]` section: when a topic's count is larger than its past explains.

    Attributes:
        step_seconds: Length of a step; counts are checked at the end of each step.
        window_seconds: Length of the window, which ends now; a multiple of the step.
        baseline_seconds: Length of the past with which a window is compared; a multiple of the
            step.
        least_baseline: The share of the baseline that must be known before the first alert.
        false_alarm: The probability of at least one false alert in `horizon` checks, for all
            topics together (Bonferroni).
        horizon: Checks over which `false_alarm` is bounded.
        min_count: Least count of a surge.
        min_ratio: Least ratio of the window's rate to the baseline's.
        calm_looks: Calm checks in a row after which an alert ends.
        gap_seconds: Least time between two alerts of one topic.
    """

    step_seconds: Seconds = 900.0
    window_seconds: Seconds = 3600.0
    baseline_seconds: Seconds = 604_800.0
    least_baseline: Annotated[float, Between(0.01, 1.0)] = 0.25
    false_alarm: Share = 0.05
    horizon: Looks = 2976
    min_count: Annotated[int, Between(1, 1_000_000)] = 5
    min_ratio: Annotated[float, Between(1.0, 1000.0)] = 2.0
    calm_looks: Annotated[int, Between(1, 1000)] = 2
    gap_seconds: Seconds = 3600.0

    def __post_init__(self) -> None:
        """Refuses lengths that are not multiples of the step."""
        check_bounds(self)
        for name in ("window_seconds", "baseline_seconds"):
            steps = getattr(self, name) / self.step_seconds
            if steps < 1 or steps != int(steps):
                raise UsageError(f"{name}: a multiple of step_seconds is needed")
        if self.baseline_seconds < 2 * self.window_seconds:
            raise UsageError("baseline_seconds: the length of at least two windows is needed")
        if self.steps_kept > MOST_STEPS:
            raise UsageError(
                f"step_seconds: {self.steps_kept:,} steps in baseline and windows; at most "
                f"{MOST_STEPS:,} are kept: take longer steps"
            )

    @property
    def window_steps(self) -> int:
        """Returns the number of steps in a window."""
        return int(self.window_seconds / self.step_seconds)

    @property
    def baseline_steps(self) -> int:
        """Returns the number of steps in the baseline."""
        return int(self.baseline_seconds / self.step_seconds)

    @property
    def steps_kept(self) -> int:
        """Returns the number of steps in window, guard and baseline.

        The guard is as long as a window and keeps a surge's start out of its own baseline.
        """
        return self.baseline_steps + 2 * self.window_steps


@dataclass(frozen=True, kw_only=True)
class TopicConfig:
    """A section `[topics.NAME]`: which rows belong to a topic, and which answers are counted.

    Attributes:
        terms: A row belongs to the topic if one of these terms occurs in its text: whole words in
            any case, and Chinese characters wherever they follow each other.
        column: In place of terms: each value of this column is a topic.
        values: With `column`: only these values. Absent: the first 200 that occur.
        answers: Labels, entity types, items or passages that are counted; for a chat `refusal`.
        at_least: For scores: a score of at least this is counted.
        at_most: For scores: a score of at most this is counted.
        per: `time` compares counts per time; `rows` compares shares of the topic's rows, so that
            more traffic alone is not a surge.
    """

    terms: Annotated[tuple[Annotated[str, Text(200, least=1)], ...], Items(MOST_TERMS)] = ()
    column: Column | None = None
    values: Annotated[tuple[Annotated[str, Text(200, least=1)], ...], Items(MOST_TERMS)] = ()
    answers: Annotated[tuple[Annotated[str, Text(LONGEST_LABEL, least=1)], ...], Items(200)] = ()
    at_least: Annotated[float, Between(-LARGE, LARGE)] | None = None
    at_most: Annotated[float, Between(-LARGE, LARGE)] | None = None
    per: Literal["time", "rows"] = "time"

    def __post_init__(self) -> None:
        """Refuses a topic that counts nothing, and one with both terms and column."""
        check_bounds(self)
        if self.terms and self.column is not None:
            raise UsageError("terms: given together with column; give only one of them")
        if self.values and self.column is None:
            raise UsageError("values: given without column; add the column that has these values")
        if not self.answers and self.at_least is None and self.at_most is None:
            raise UsageError(
                'answers: missing; name the counted answers, such as answers = ["negative"]'
            )


@dataclass(frozen=True, kw_only=True)
class AlertsConfig:
    """The `[alerts]` section: every address to which an alert goes.

    Attributes:
        file: File that gets one line of JSON per alert.
        webhooks: Addresses that get a POST of JSON per alert.
        recipients: Addresses that get a mail per alert, through `mail_server`.
        mail_server: The mail server, as `host:port`.
        mail_sender: The sender's address.
        mail_starttls: Whether the connection to the server is encrypted before the mail is sent.
        outside_hosts: Hosts outside of this machine to which alerts may go.
    """

    file: Place | None = None
    webhooks: Annotated[tuple[Annotated[str, Text(2048, least=1)], ...], Items(MOST_ADDRESSES)] = ()
    recipients: Annotated[
        tuple[Annotated[str, Text(320, least=3)], ...], Items(MOST_ADDRESSES)
    ] = ()
    mail_server: Annotated[str, Text(MOST_NAME, least=1)] = "localhost:25"
    mail_sender: Annotated[str, Text(320, least=3)] = "cloister@localhost"
    mail_starttls: bool = False
    outside_hosts: Annotated[
        tuple[Annotated[str, Text(MOST_NAME, least=1)], ...], Items(MOST_ADDRESSES)
    ] = ()


@dataclass(frozen=True, kw_only=True)
class HttpConfig:
    """The `[http]` section: metrics, page and, for that source, rows by POST.

    Attributes:
        listen: A loopback `host:port`, which only this machine can reach; absent: no HTTP.
    """

    listen: Annotated[str, Text(MOST_NAME, least=1)] | None = None
