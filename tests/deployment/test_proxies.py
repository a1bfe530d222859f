"""Proxies of the environment: what goes to this machine's loopback never passes one."""

import ssl
from functools import cache
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx
import pytest
import requests

from cloister.deployment.flower.control import Control
from cloister.deployment.flower.environment import quiet_environment
from cloister.deployment.flower.flower_tasks import CLIENT_TASK, Executor, Runtime
from cloister.deployment.flower.sockets import make_private
from cloister.deployment.proxies import is_loopback, proxy_for, sparing_loopback
from cloister.errors import NetworkError
from tests.support.https import FakeSuperLink, at_socket
from tests.support.proxies import PROXIES, recording_proxy

HOSTS = ("localhost", "127.0.0.1", "[::1]")
GIVEN: dict[str, dict[str, str]] = {
    "none": {},
    "upper": {"NO_PROXY": "fed.example.org"},
    "lower": {"no_proxy": "fed.example.org"},
    "both, that differ": {"NO_PROXY": "fed.example.org", "no_proxy": "mirror.example.org"},
    "loopback already": {"NO_PROXY": "127.0.0.1, localhost"},
    "empty": {"NO_PROXY": "", "no_proxy": ""},
    "stars": {"NO_PROXY": "*"},
}


@cache
def context() -> ssl.SSLContext:
    """The authorities of this machine, which a client would read for each proxy."""
    return ssl.create_default_context()


def client() -> httpx.Client:
    return httpx.Client(verify=context())


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN.keys())
@pytest.mark.parametrize("host", HOSTS)
def test_no_library_takes_a_proxy_to_loopback(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], host: str
) -> None:
    """Those that Flower and Hugging Face's libraries use, under every variable that they know."""
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if "127.0.0.1" not in "".join(given.values()) and given != {"NO_PROXY": "*"}:
        assert _goes_through(client(), f"http://{host}:1/")  # so this test can fail
    spared = sparing_loopback(given)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, spared[name])
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}:1/v1/runtime"
        assert not _goes_through(client(), url)
        assert requests.utils.get_environ_proxies(url) == {}
        assert proxy_bypass(host.strip("[]"))
    exempt = {name.strip() for text in given.values() for name in text.split(",") if name.strip()}
    assert exempt <= set(spared["NO_PROXY"].split(","))
    assert spared["NO_PROXY"] == spared["no_proxy"]
    if "*" not in exempt:
        assert getproxies()["https"]
        assert _goes_through(client(), "https://far.example.org/")  # and others still pass


def _goes_through(client: httpx.Client, url: str) -> bool:
    with client:
        return client._transport_for_url(httpx.URL(url)) is not client._transport


def test_children_spare_loopback_and_keep_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "mirror.example.org")
    made = quiet_environment(Path("flwr"))
    assert made["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    for name in ("NO_PROXY", "no_proxy"):
        assert made[name] == "mirror.example.org,localhost,127.0.0.1,::1"
    assert made["FLWR_INTERNAL_GRPC_CONTROL_API"] == "0"
    assert "TRANSFORMERS_OFFLINE" not in made
    offline = quiet_environment(Path("flwr"), offline=True)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        assert offline[name] == "1"


def test_our_own_clients_show_a_proxy_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_private(tmp_path / "state")
    place = tmp_path / "state" / "s.sock"
    link = FakeSuperLink()
    with recording_proxy(monkeypatch) as recorder, at_socket(link, place):
        control, executor = Control(place), Executor(Runtime(place, b"secret"), CLIENT_TASK)
        with pytest.raises((NetworkError, ValueError)):
            control.start({"recipe": "", "run": ""})  # the answer is none of Flower's
        with pytest.raises(ValueError, match="payload"):
            executor.claim()
        control.close()
        executor.close()
        assert {path for _, path, _, _ in link.asked} == {
            "/v1/control/start-run",
            "/v1/runtime/acquire-task",
        }
        assert recorder.seen == []
        with httpx.Client(timeout=600) as client, pytest.raises(httpx.HTTPError):
            client.get("http://127.0.0.1:1/")
        assert recorder.seen != []  # it does record


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("fed.example.org", False),
        ("128.0.0.1", False),
        ("localhost.example.org", False),
        ("::2", False),
        ("", False),
    ],
)
def test_loopback_is_told_without_looking_up(host: str, loops: bool) -> None:
    assert is_loopback(host) is loops


def test_a_proxy_is_named_for_other_hosts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("fed.example.org") is None
    monkeypatch.setenv("ALL_PROXY", "http://all.example.org:1")
    assert proxy_for("fed.example.org") == "http://all.example.org:1"
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:1")
    assert proxy_for("fed.example.org") == "http://proxy.example.org:1"
    monkeypatch.setenv("no_proxy", "fed.example.org")
    assert proxy_for("fed.example.org") is None
    assert proxy_for("127.0.0.1") is None
