"""Sends an alert to one address: a file, a webhook, a mail server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cloister.files import open_file
from cloister.owner_only import FILE
from cloister.printable import one_line
from cloister.watching.addresses import HostPort, host_port
from cloister.watching.alert import Alert
from cloister.watching.watch_file import WatchFile

# Most seconds of one delivery, whatever the receiver does.
SECONDS = 10.0
# The ids of a file's last alerts are searched in this many bytes at its end. They hold some hundred
# alerts, while at most one alert can be in the file and not in the state.
END_BYTES = 2**18
# Most characters of a reason and of a subject.
LONGEST = 150

# Sends an alert; returns the reason of a failure, or None.
Send = Callable[[Alert], str | None]


def senders(file: WatchFile) -> Mapping[str, Send]:
    """Returns the sender for each address of a watch file, by the address's displayed name."""
    alerts, found = file.alerts, dict[str, Send]()
    if alerts.file is not None:
        found[f"file {alerts.file}"] = _to_file(file.place(alerts.file))
    for url in alerts.webhooks:
        # A webhook's path is often its secret, so its displayed name has the host and a hash.
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        found[f"webhook {urlsplit(url).hostname} {digest}"] = _to_webhook(url)
    server = host_port(alerts.mail_server, "alerts.mail_server")
    for recipient in alerts.recipients:
        found[f"mail {recipient}"] = _to_mail(
            server, alerts.mail_sender, recipient, starttls=alerts.mail_starttls
        )
    return found


def _to_file(path: Path) -> Send:
    def send(alert: Alert) -> str | None:
        try:
            append(path, alert)
        except OSError as error:
            return one_line(error.strerror or type(error).__name__, LONGEST)
        return None

    return send


def append(path: Path, alert: Alert) -> None:
    """Appends an alert to a file, unless the file has it already.

    Raises:
        OSError: The file cannot be written, or is not a regular file.

    Guarantees:
        Each alert is one complete line, once, even if the process was killed while it wrote: the
        beginning of this alert at the file's end is removed. Everything else stays.
    """
    text = json.dumps(alert.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
    content, whole = text.encode(), None
    if path.exists():
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - END_BYTES))
            end = file.read()
        if any(_id_of(line) == alert.id for line in end.splitlines()):
            return
        last = end[end.rfind(b"\n") + 1 :]
        if last and content.startswith(last):
            whole = size - len(last)
        elif last:  # somebody else's line without an end
            content = b"\n" + content
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE)
    with os.fdopen(descriptor, "wb") as out:
        if whole is not None:
            out.truncate(whole)
        out.seek(0, os.SEEK_END)
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _id_of(line: bytes) -> object:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("id") if isinstance(found, dict) else None


def _to_webhook(url: str) -> Send:
    async def post(alert: Alert) -> str | None:
        async with asyncio.timeout(SECONDS):
            return await _posted(url, alert)

    def send(alert: Alert) -> str | None:
        try:
            return asyncio.run(post(alert))
        except TimeoutError:
            return f"no answer within {SECONDS:g} seconds"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return one_line(f"{type(error).__name__}: {error}", LONGEST)

    return send


async def _posted(url: str, alert: Alert) -> str | None:
    # No proxy from the environment and no redirect: both would send the alert to another host. The
    # caller sets the time limit, of the whole delivery.
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client,
        client.stream(
            "POST",
            url,
            content=json.dumps(alert.to_json(), ensure_ascii=False, allow_nan=False).encode(),
            headers={"content-type": "application/json", "idempotency-key": alert.id},
        ) as answer,
    ):
        # The answer's body is not read, so it cannot fill the memory.
        return None if answer.is_success else f"status {answer.status_code}"


def _to_mail(server: HostPort, sender: str, recipient: str, *, starttls: bool) -> Send:
    def send(alert: Alert) -> str | None:
        try:
            with smtplib.SMTP(server.host, server.port, timeout=SECONDS) as connection:
                if starttls:
                    connection.starttls(context=ssl.create_default_context())
                connection.send_message(mail_of(alert, sender, recipient))
        except (OSError, smtplib.SMTPException) as error:
            return one_line(f"{type(error).__name__}: {error}", LONGEST)
        return None

    return send


def mail_of(alert: Alert, sender: str, recipient: str) -> EmailMessage:
    """Returns an alert as a mail; its Message-ID has the alert's id, so copies are recognized."""
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, recipient
    mail["Subject"] = one_line(f"[{alert.watch}] {alert.message}", LONGEST)
    mail["Message-ID"] = f"<{alert.id}.watch@cloister.invalid>"
    figures = "\n".join(f"{name}: {value}" for name, value in alert.figures.items())
    mail.set_content(f"{one_line(alert.message, 1000)}\n\nat {alert.at}\n{figures}\n")
    return mail
