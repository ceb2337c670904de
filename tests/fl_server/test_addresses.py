import ipaddress
import socket
from pathlib import Path

import pytest

from fl_server.addresses import is_every, likely_address, own_addresses, with_port
from fl_server.http_server import listen

LISTING = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000002 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
"""


def test_addresses_of_both_kinds_are_found_without_those_of_one_link(tmp_path: Path) -> None:
    listing = tmp_path / "if_inet6"
    listing.write_text(LISTING)
    found = own_addresses(listing)
    assert [address for address in found if ":" in address] == ["::1", "2001:db8::2"]
    assert "127.0.0.1" in found
    assert all(ipaddress.ip_address(address) for address in found)


def test_a_machine_without_ipv6_has_the_others(tmp_path: Path) -> None:
    assert "127.0.0.1" in own_addresses(tmp_path / "missing")


@pytest.mark.parametrize(
    ("known", "likely"),
    [
        (["127.0.0.1", "192.0.2.7", "::1", "2001:db8::2"], "192.0.2.7"),
        (["127.0.0.1", "::1", "2001:db8::2"], "2001:db8::2"),
        (["127.0.0.1", "::1"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_devices_are_told_an_address_of_the_network_first_of_all(known: list[str], likely: str) -> None:
    assert likely_address(known) == likely


def test_an_ipv6_address_with_a_port_has_brackets() -> None:
    assert with_port("::1", 8443) == "[::1]:8443"
    assert with_port("fl.example.org", 8443) == "fl.example.org:8443"
    assert with_port("192.0.2.7", 8443) == "192.0.2.7:8443"


@pytest.mark.parametrize(("host", "every"), [("::", True), ("0.0.0.0", True), ("::1", False), ("fl.example.org", False)])
def test_all_addresses_have_a_name_in_either_kind(host: str, every: bool) -> None:
    assert is_every(host) is every


@pytest.mark.network
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_who_listens_on_all_addresses_is_reached_by_ipv4_and_ipv6() -> None:
    listener = listen("::", 0)
    with listener:
        listener.listen()
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, listener.getsockname()[1]), timeout=5):
                pass
