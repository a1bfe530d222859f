"""Alerts reach files, webhooks and mail servers, whatever these do; what waits is kept."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.watching import alert_delivery as delivery
from cloister.watching.alert import Alert, make_alert
from cloister.watching.alert_delivery import END_BYTES, Send, append, mail_of, senders
from cloister.watching.couriers import Couriers
from cloister.watching.outbox import (
    LONGEST_PAUSE,
    MOST_WAITING,
    Outbox,
    next_due,
    with_alerts,
    with_result,
)
from cloister.watching.watch_file import watch_file_of
from tests.support.webhooks import webhook

NOTHING = Outbox({}, {})


def alert(n: int = 0, key: str = "acme") -> Alert:
    return make_alert("news", "surge", key, "begins", 1.7e9 + n, f"{key} surges", {"count": n})


def sender(text: str, folder: Path = Path()) -> Send:
    least = (
        '[watch]\nname = "n"\nfolder = "f"\n[source]\nkind = "stdin"\n'
        '[topics.all]\nanswers = ["x"]\n[alerts]\n'
    )
    (found,) = senders(watch_file_of(folder / "watch.toml", (least + text).encode())).values()
    return found


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SECONDS", 0.5)


def test_the_same_look_gives_the_same_id_and_another_another() -> None:
    assert alert().id == alert().id
    assert len({alert().id, alert(1).id, alert(key="other").id}) == 3


def test_a_webhook_gets_the_alert_with_its_id_as_key() -> None:
    with webhook() as receiver:
        assert sender(f'webhooks = ["{receiver.url}"]')(alert()) is None
        assert receiver.alerts == [alert().to_json()]
        assert receiver.keys == [alert().id]


def test_a_webhook_that_hangs_is_left_in_time(hurried: None) -> None:
    with webhook(None) as receiver:
        why = sender(f'webhooks = ["{receiver.url}"]')(alert())
        assert why == "no answer within 0.5 seconds"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "status 500"),
        (b"HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:9/\r\n\r\n", "status 302"),
        (b"\x1b[2J\x00 not http\r\n\r\n", "ProtocolError"),
        (b"", "ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000, "Error"),
    ],
)  # fmt: skip
def test_a_hostile_reply_is_a_failure_in_one_printable_line(answer: bytes, told: str) -> None:
    with webhook(answer) as receiver:
        why = sender(f'webhooks = ["{receiver.url}"]')(alert())
    assert why is not None
    assert told in why
    assert why.isprintable()
    assert len(why) < 200


def test_a_reply_of_any_size_is_not_read() -> None:
    """It says that a terabyte follows, and ends before: the status is all that matters."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n" + b"x" * 100_000
    with webhook(answer) as receiver:
        assert sender(f'webhooks = ["{receiver.url}"]')(alert()) is None


def test_no_proxy_of_the_environment_gets_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with webhook() as receiver:
        assert sender(f'webhooks = ["{receiver.url}"]')(alert()) is None


def test_a_file_has_each_alert_once_and_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    for one in (alert(), alert(1), alert(), alert(1)):
        append(path, one)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [
        alert().id,
        alert(1).id,
    ]
    assert path.stat().st_mode & 0o077 == 0
    # A kill in the middle of a write leaves a line without an end.
    torn = json.dumps(alert(2).to_json())[:40]
    with path.open("a") as file:
        file.write(torn)
    append(path, alert(2))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


@pytest.mark.parametrize("size", [30, 2 * END_BYTES])
def test_what_somebody_else_wrote_into_the_file_stays(tmp_path: Path, size: int) -> None:
    """A watch file may name a file of the operator's by mistake, whose last line has no end."""
    path = tmp_path / "alerts.jsonl"
    path.write_text("x" * size)
    append(path, alert())
    append(path, alert())
    first, second = path.read_text().splitlines()
    assert first == "x" * size
    assert json.loads(second)["id"] == alert().id


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").mkdir()
    assert sender('file = "alerts.jsonl"', tmp_path)(alert()) == "is a folder, not a file"
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "planted")
    assert sender('file = "link.jsonl"', tmp_path)(alert()) is not None
    assert not (tmp_path / "planted").exists()


@contextmanager
def mail_server(take: Callable[[str], None]) -> Iterator[int]:
    """A mail server for one message."""
    place = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = place.accept()
        with connection, connection.makefile("rwb") as file:
            file.write(b"220 hello\r\n")
            file.flush()
            while line := file.readline():
                word = line[:4].upper().strip()
                if word == b"DATA":
                    file.write(b"354 go on\r\n")
                    file.flush()
                    lines = []
                    while (one := file.readline()) != b".\r\n":
                        lines.append(one.decode())
                    take("".join(lines))
                file.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                file.flush()
                if word == b"QUIT":
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield place.getsockname()[1]
    finally:
        thread.join(5)
        place.close()


def test_a_mail_has_the_alert_and_its_id() -> None:
    got: list[str] = []
    with mail_server(got.append) as port:
        text = f'recipients = ["desk@bank.example"]\nmail_server = "127.0.0.1:{port}"'
        assert sender(text)(alert()) is None
    assert "To: desk@bank.example" in got[0]
    assert alert().id in got[0]
    assert "acme surges" in got[0]


def test_a_name_with_line_ends_adds_no_header() -> None:
    mail = mail_of(alert(key="x\r\nBcc: all@bank.example"), "a@b.c", "d@e.f")
    assert mail["Bcc"] is None
    assert b"\nBcc" not in mail.as_bytes()


def test_a_mail_server_that_is_absent_is_a_failure() -> None:
    with socket.socket() as place:  # bound, so that nobody else gets it, and not listening
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        why = sender(f'recipients = ["a@b.c"]\nmail_server = "127.0.0.1:{port}"')(alert())
    assert why is not None
    assert "refused" in why


def test_pauses_double_up_to_the_longest() -> None:
    outbox, now, pauses = with_alerts(NOTHING, [alert()], ["x"]), 0.0, []
    for _ in range(12):
        entry = next_due(outbox, "x", now)
        assert entry is not None
        outbox = with_result(outbox, entry, "no", now)
        (waiting,) = outbox.waiting.values()
        pauses.append(waiting.due - now)
        assert next_due(outbox, "x", waiting.due - 0.1) is None
        now = waiting.due
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, *[LONGEST_PAUSE] * 3]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab"), st.booleans()), max_size=40))
def test_an_alert_is_in_the_outbox_until_it_arrived(tries: list[tuple[int, str, bool]]) -> None:
    alerts = [alert(n) for n in range(5)]
    outbox, left = with_alerts(NOTHING, alerts, "ab"), {(n, to) for n in range(5) for to in "ab"}
    for n, to, arrives in tries:
        entry = outbox.waiting.get((alerts[n].id, to))
        if entry is not None:
            outbox = with_result(outbox, entry, None if arrives else "no", 0.0)
            left -= {(n, to)} if arrives else set()
    assert set(outbox.waiting) == {(alerts[n].id, to) for n, to in left}
    assert sum(outbox.delivered.values()) == 10 - len(left)


def test_an_outbox_is_bounded_and_says_what_it_dropped() -> None:
    outbox = with_alerts(NOTHING, [alert(n) for n in range(MOST_WAITING + 3)], ["x"])
    assert (len(outbox.waiting), outbox.dropped) == (MOST_WAITING, 3)


def test_an_address_that_hangs_keeps_no_other_from_its_alerts() -> None:
    free, got, said = threading.Event(), list[str](), list[str]()

    def hangs(one: Alert) -> str | None:
        free.wait(20)
        return None

    def takes(one: Alert) -> str | None:
        got.append(one.key)
        return None

    couriers = Couriers({"slow": hangs, "quick": takes}, said.append)
    outbox = with_alerts(NOTHING, [alert(key="a"), alert(key="b")], couriers.addresses)
    for _ in range(3):
        outbox = couriers.exchange(outbox, 0.0, wait=5.0)
    assert got == ["a", "b"]
    assert {address for _, address in outbox.waiting} == {"slow"}
    free.set()
    for _ in range(3):
        outbox = couriers.exchange(outbox, 0.0, wait=5.0)
    couriers.close()
    assert outbox.waiting == {}


def test_a_sender_that_breaks_is_a_failure_and_goes_on() -> None:
    tries: list[int] = []

    def breaks(one: Alert) -> str | None:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("anything")
        return None

    said: list[str] = []
    couriers = Couriers({"x": breaks}, said.append)
    outbox = with_alerts(NOTHING, [alert()], ["x"])
    for now in (0.0, 0.0, 10.0, 10.0):
        outbox = couriers.exchange(outbox, now, wait=5.0)
    couriers.close()
    assert outbox.waiting == {}
    assert "did not arrive (RuntimeError)" in said[0]
    assert "arrived after 2 tries" in said[1]


def test_what_waited_for_an_address_that_is_gone_is_dropped() -> None:
    said: list[str] = []
    couriers = Couriers({}, said.append)
    assert couriers.without_strangers(with_alerts(NOTHING, [alert()], ["x"])).waiting == {}
    assert len(said) == 1
