import itertools
import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import IntegrityError
from common.secagg.shamir import LIMB_BITS, LIMBS, PRIME, SHARE_BYTES, combine, is_share, split
from tests.common.secagg.rehearsal import Stream

SECRET = bytes(range(100, 132))


def plain_interpolation(points: list[int], shares: list[bytes]) -> int:
    """The secret as an integer, with Python's integers and no trick."""
    secret = 0
    for limb in range(LIMBS):
        value = 0
        for x, share in zip(points, shares, strict=True):
            weight = int.from_bytes(share[4 * limb : 4 * limb + 4], "big")
            for other in points:
                if other != x:
                    weight = weight * other * pow(other - x, -1, PRIME) % PRIME
            value = (value + weight) % PRIME
        secret |= value << (LIMB_BITS * limb)
    return secret


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_threshold_of_shares_give_the_secrets_back(data: st.DataObject) -> None:
    holders = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, holders))
    points = data.draw(st.lists(st.integers(1, PRIME - 1), min_size=holders, max_size=holders, unique=True))
    wanted = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4))
    shares = split(wanted, points, threshold, Stream(7))
    chosen = data.draw(st.permutations(range(holders)))[:threshold]
    rows = np.array([[points[i] for i in chosen]] * len(wanted), dtype=np.int64)
    assert combine(rows, [[row[i] for i in chosen] for row in shares]) == wanted
    assert plain_interpolation([points[i] for i in chosen], [shares[0][i] for i in chosen]) == int.from_bytes(wanted[0], "big")


def test_secrets_with_different_holders_are_combined_together() -> None:
    shares = split([SECRET, bytes(32), b"\xff" * 32], range(1, 8), 3, secrets.token_bytes)
    choices = [(1, 2, 3), (7, 1, 4), (5, 6, 2)]
    rows = [[shares[i][x - 1] for x in choice] for i, choice in enumerate(choices)]
    assert combine(np.array(choices), rows) == [SECRET, bytes(32), b"\xff" * 32]


def test_fewer_shares_fit_every_secret() -> None:
    points, other = [1, 2, 3], bytes(32)
    shares = split([SECRET], points, 3, secrets.token_bytes)[0]
    # Two shares and any claimed secret lie on one polynomial: its third share exists and gives that secret.
    for limb_secret in (SECRET, other):
        number = int.from_bytes(limb_secret, "big")
        third = b""
        for limb in range(LIMBS):
            y0 = number >> (LIMB_BITS * limb) & (2**LIMB_BITS - 1)
            y1, y2 = (int.from_bytes(share[4 * limb : 4 * limb + 4], "big") for share in shares[:2])
            third += ((y0 - 3 * y1 + 3 * y2) % PRIME).to_bytes(4, "big")
        assert combine(np.array([points]), [[*shares[:2], third]]) == [limb_secret]


def test_shares_below_the_threshold_are_uniform_whatever_the_secret() -> None:
    for secret in (bytes(32), b"\xff" * 32):
        drawn = [split([secret], [1, 2, 3], 2, secrets.token_bytes)[0][0] for _ in range(400)]
        values = np.frombuffer(b"".join(drawn), dtype=">u4").astype(np.float64) / PRIME
        counts = np.histogram(values, bins=16, range=(0, 1))[0]
        expected = values.size / 16
        assert ((counts - expected) ** 2 / expected).sum() < 60, "chi-square with 15 degrees of freedom, p about 2e-7"


def test_a_share_taken_from_another_set_gives_another_secret_or_none() -> None:
    one, two = (split([SECRET], [1, 2, 3], 3, Stream(number))[0] for number in (1, 2))
    assert combine(np.array([[1, 2, 3]]), [[one[0], one[1], two[2]]]) != [SECRET]


def test_limbs_that_make_no_secret_give_none() -> None:
    too_large = (PRIME - 1).to_bytes(4, "big") * LIMBS
    assert combine(np.array([[1]]), [[too_large]]) == [None]
    beyond_256_bits = bytes(4 * (LIMBS - 1)) + (1 << 16).to_bytes(4, "big")
    assert combine(np.array([[1]]), [[beyond_256_bits]]) == [None]


@pytest.mark.parametrize("points", [[0, 1, 2], [1, 1, 2], [1, 2, PRIME], [1, 2, PRIME + 1], []])
def test_zero_repeated_and_overlarge_points_are_refused(points: list[int]) -> None:
    with pytest.raises(IntegrityError, match="points"):
        split([SECRET], points, 1, secrets.token_bytes)
    with pytest.raises(IntegrityError, match="points"):
        combine(np.array([points], dtype=np.int64), [[bytes(SHARE_BYTES)] * len(points)])


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_threshold_that_the_holders_cannot_reach_is_refused(threshold: int) -> None:
    with pytest.raises(IntegrityError, match="threshold"):
        split([SECRET], [1, 2, 3], threshold, secrets.token_bytes)


def test_malformed_secrets_and_shares_are_refused() -> None:
    with pytest.raises(IntegrityError, match="32 bytes"):
        split([bytes(31)], [1, 2], 2, secrets.token_bytes)
    good = bytes(SHARE_BYTES)
    for row in ([good[:-1], good], [good], [b"\xff" * SHARE_BYTES, good]):
        with pytest.raises(IntegrityError):
            combine(np.array([[1, 2]]), [row])
    assert is_share(good)
    assert not is_share(PRIME.to_bytes(4, "big") * LIMBS)
    assert not is_share(good + b"\0")


def test_coefficients_skip_the_one_value_that_is_no_field_element() -> None:
    answers = itertools.chain([b"\xff" * (4 * LIMBS)], itertools.repeat(bytes([0, 0, 0, 1]) * LIMBS))
    shares = split([SECRET], [1, 2], 2, lambda count: next(answers)[:count])[0]
    assert combine(np.array([[1, 2]]), [shares]) == [SECRET]
    assert int.from_bytes(shares[0][:4], "big") == (int.from_bytes(SECRET, "big") & (2**LIMB_BITS - 1)) + 1
