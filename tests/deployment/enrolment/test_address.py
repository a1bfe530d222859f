"""Addresses as people write them."""

import pytest

from cloister.deployment.enrolment.address import is_host, split_address
from cloister.errors import UsageError


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("fed.example.org:9443", ("fed.example.org", 9443)),
        ("localhost:1", ("localhost", 1)),
        ("10.0.0.7:65535", ("10.0.0.7", 65535)),
        ("[fd00::7]:9443", ("fd00::7", 9443)),
        ("xn--bcher-kva.example:443", ("xn--bcher-kva.example", 443)),
        ("gpu_node_1:9443", ("gpu_node_1", 9443)),
    ],
)
def test_host_and_port(address: str, found: tuple[str, int]) -> None:
    assert split_address(address, "address") == found


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        ":9443",
        "fed",
        "fed:",
        "fed:x",
        "fed:0",
        "fed:65536",
        "fed:-1",
        "fed:+1",
        "fed:٩٤٤٣",
        "fed:" + "9" * 5000,
        "fd00::7:9443",
        "[fed]:9443",
        "[fd00::7:9443",
        "fe d:1",
        "https://fed:9443",
        "fed/v1:9443",
        "a..b:1",
        "-fed:1",
        "bücher.example:1",
        "*.example:1",
        "fed.:1",
        "x" * 64 + ":1",
        "user@fed:1",
        "[fe80::1%eth0]:1",
        "fed\n:1",
    ],
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(UsageError, match=r"^listen: .* host:port is needed"):
        split_address(address, "listen")


def test_hosts() -> None:
    assert is_host("10.0.0.7")
    assert is_host("fd00::7")
    assert not is_host("")
    assert not is_host(".".join(["label" * 10] * 6))
