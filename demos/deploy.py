"""A whole deployment on one machine: a coordinator and three hospitals, by the commands they type.

    python demos/deploy.py [FOLDER] [--rounds N]

Every party has a folder of its own and its own processes; they meet over TLS on loopback. Papers
are carried by copying files, and fingerprints "over the telephone" by reading them from what the
other side printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cloister.data.records import TextRecord
from cloister.data.synthetic import hospital_notes

HOSPITALS = ("st-marys", "riverside", "county-general")
CLOISTER = Path(sys.executable).parent / "cloister"
FINGERPRINT = re.compile(r"\b(?:[0-9a-f]{8}-){7}[0-9a-f]{8}\b")

RECIPE = """\
[study]
name = "triage"

[data]
test = "test.jsonl"

[task]
labels = {labels}

[training]
expected_batch_size = 64

[federation]
num_rounds = {rounds}
min_sites = 3

[privacy]
epsilon = 8.0
"""

SITE = """\
[site]
name = "{name}"
data = "records.jsonl"
public_records = {records}
ledger = "records.ledger"

[records]
task = "sequence-classification"
labels = {labels}

[budget]
epsilon = 10.0
delta = 2e-5

[privacy]
unit = "record"

[accept]
tasks = ["sequence-classification"]
base_sha256 = ["53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"]
"""


# Two hospitals let such studies in by a standing approval; at the first somebody looks first.
STANDING = """
[[approvals.standing]]
base_sha256 = ["53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"]
tasks = ["sequence-classification"]
unit = "record"
max_epsilon = 8.0
max_rounds = {rounds}
until = 2099-12-31
"""
# Seconds in which a started study has asked at every site: 20 on a laptop, minutes on a busy one.
ASKED_WITHIN = 900.0


def run(folder: Path, *arguments: str, into: str = "", quiet: bool = False) -> str:
    """One command, as somebody types it in a folder; shown, and its output returned.

    `quiet`: show the last line alone, of what was shown before.
    """
    say_command(folder, arguments, after=f" > {into}" if into else "")
    done = subprocess.run(
        [CLOISTER, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if into:
        (folder / into).write_text(done.stdout)
    else:
        said = done.stdout.splitlines(keepends=True)
        say("".join(said[-1:] if quiet else said), end="")
    if done.returncode != 0:
        raise SystemExit(f"ended with code {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[None]:
    """A service in a terminal of its own, ended by Ctrl-C at the end."""
    say_command(folder, arguments, after=" &")
    with (folder / "service.out").open("wb") as out:
        process = subprocess.Popen(
            [CLOISTER, *arguments], cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


def fingerprint(text: str) -> str:
    """What one person reads to another from a terminal."""
    found = FINGERPRINT.search(text)
    assert found, text
    return found.group()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_data(root: Path, rounds: int) -> None:
    """Each hospital's private records, and the coordinator's recipe and public test set."""
    train, test = hospital_notes()
    hospitals = sorted({note.site or "" for note in train})
    # The departments are a public list, which the coordinator and every hospital type alike.
    labels = json.dumps(sorted({note.label for note in test}))
    for index, name in enumerate(HOSPITALS):
        folder = root / name
        folder.mkdir(parents=True)
        rows = [note for note in train if note.site == hospitals[index]]
        _write_rows(folder / "records.jsonl", rows)
        text = SITE.format(name=name, records=len(rows), labels=labels)
        (folder / "site.toml").write_text(text + STANDING.format(rounds=rounds) * (index > 0))
    desk = root / "coordinator-desk"
    desk.mkdir()
    _write_rows(desk / "test.jsonl", test)
    (desk / "study.toml").write_text(RECIPE.format(rounds=rounds, labels=labels))


def digest_that_waits(site: Path) -> str:
    """The study that waits for a hospital's operator, once it has asked there."""
    deadline = time.monotonic() + ASKED_WITHIN
    command = [CLOISTER, "site", "studies", "list", "site.toml", "--json"]
    while time.monotonic() < deadline:
        told = subprocess.run(command, cwd=site, stdout=subprocess.PIPE, text=True, check=True)
        for row in json.loads(told.stdout)["studies"]:
            return str(row["study"])
        time.sleep(1.0)
    raise SystemExit(f"no study asked at {site.name} within {ASKED_WITHIN:g} s; see its logs")


def _write_rows(path: Path, notes: Sequence[TextRecord]) -> None:
    rows = [{"text": note.text, "label": note.label} for note in notes]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def say(text: str, end: str = "\n") -> None:
    """Prints at once."""
    print(text, end=end, flush=True)  # noqa: T201


def say_command(folder: Path, arguments: Sequence[str], after: str = "") -> None:
    """Shows a command as it stands in somebody's terminal."""
    line = " ".join(["cloister", *arguments])
    say(f"\n\033[2m{folder.name}\033[0m $ \033[1m{line}{after}\033[0m")


def main() -> None:
    """The whole life of a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/deploy-demo"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    root = options.folder.absolute()
    if root.exists():
        shutil.rmtree(root)
    write_data(root, options.rounds)
    desk = root / "coordinator-desk"
    endpoint = free_port()
    with contextlib.ExitStack() as services:
        shown = run(
            desk,
            "server",
            "init",
            "coordinator",
            "--address",
            f"localhost:{endpoint}",
            "--listen",
            f"127.0.0.1:{endpoint}",
        )
        authority = fingerprint(shown)
        services.enter_context(running(desk, "server", "start", "coordinator"))
        for name in HOSPITALS:
            site = root / name
            run(site, "site", "init", "site.toml", "--yes")
            run(desk, "member", "invite", name)
            shutil.move(desk / f"{name}.invite.json", site)
            shown = run(
                site, "site", "join", "site.toml", f"{name}.invite.json", "--fingerprint", authority
            )
            request = site / f"{name}.federation" / "request.json"
            shutil.copy(request, desk / f"{name}.request.json")
            run(
                desk,
                "member",
                "approve",
                f"{name}.request.json",
                "--fingerprint",
                fingerprint(shown),
            )
            shutil.move(desk / f"{name}.welcome.json", site)
            run(site, "site", "join", "site.toml", f"{name}.welcome.json")
            services.enter_context(running(site, "site", "start", "site.toml"))
        run(desk, "run", "start", "study.toml", "--name", "triage")
        site = root / HOSPITALS[0]
        digest = digest_that_waits(site)
        run(site, "site", "studies", "show", "site.toml", digest[:12])
        # At a terminal the first digits will do, and the study's name is asked for.
        run(site, "site", "studies", "approve", "site.toml", digest, "--yes", quiet=True)
        run(desk, "run", "watch", "triage")
        run(desk, "server", "status")
    folder = desk / "coordinator" / "runs" / "triage"
    for name in HOSPITALS:
        site = root / name
        run(site, "site", "status", "site.toml")
        run(
            site,
            "audit",
            "certificate",
            "records.ledger",
            "--adapter",
            str(folder / "adapter"),
            "--site",
            name,
        )
        shutil.copy(site / f"{name}.json", desk)
    run(desk, "member", "list", "--json", into="keys.json")
    run(
        desk,
        "audit",
        "bundle",
        *(f"{name}.json" for name in HOSPITALS),
        "--adapter",
        str(folder / "adapter"),
        "--run",
        str(folder),
        "--out",
        "bundle.zip",
    )
    run(desk, "audit", "verify", "bundle.zip", "--keys", "keys.json")
    say(f"\neverything has ended; all of it lies in {root}")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    say(f"{time.monotonic() - started:.0f} s")
