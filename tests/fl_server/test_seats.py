"""Places that are counted: by holder, and in all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.seats import Seats, host_of, network_of


def test_a_holder_has_its_share_and_all_together_have_the_whole() -> None:
    seats = Seats(3, 2)
    assert [seats.take("a") for _ in range(3)] == [True, True, False]
    assert [seats.take("b") for _ in range(2)] == [True, False]
    seats.leave("a")
    assert seats.take("b")
    assert not seats.take("c")


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_whoever_leaves_makes_room_and_nobody_is_remembered(comers: list[str]) -> None:
    seats = Seats(5, 2)
    inside: list[str] = []
    for who in comers:
        if seats.take(who):
            inside.append(who)
        elif inside:
            seats.leave(inside.pop(0))
        assert len(inside) <= 5
        assert all(inside.count(each) <= 2 for each in "abc")
    for who in inside:
        seats.leave(who)
    assert not seats._held
    assert [seats.take(str(number)) for number in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::/64"),
        ("ipv6:%5B2001:db8:0:0:ffff::9%5D:1", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:1", "192.0.2.1"),
        ("unix:", "unix:"),
    ],
)
def test_an_ipv6_network_is_one_address_and_so_is_an_ipv4_address_in_either_dress(peer: str, network: str) -> None:
    assert network_of(host_of(peer)) == network
