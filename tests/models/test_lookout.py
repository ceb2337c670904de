"""How often a registry is looked at, by a clock that the test winds."""

import os
from pathlib import Path

import pytest

from models.lookout import LONGEST_PAUSE, Lookout


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lookout(tmp_path: Path, clock: Clock) -> Lookout:
    (tmp_path / "LATEST").write_bytes(b"000001-r0001\n")
    return Lookout(tmp_path, clock)


def pauses(lookout: Lookout, clock: Clock, looks: int, *, refused: bool) -> list[float]:
    """Seconds between so many looks, by steps of half a second."""
    found, since = list[float](), clock.seconds
    assert lookout.due()
    lookout.looked(refused=refused)
    while len(found) < looks:
        clock.seconds += 0.5
        if lookout.due():
            found.append(clock.seconds - since)
            since = clock.seconds
            lookout.looked(refused=refused)
    return found


def test_it_looks_once_a_second_while_all_is_well(lookout: Lookout, clock: Clock) -> None:
    assert pauses(lookout, clock, 4, refused=False) == [1, 1, 1, 1]


def test_a_refused_version_is_looked_at_ever_less_often_but_never_given_up(lookout: Lookout, clock: Clock) -> None:
    assert pauses(lookout, clock, 9, refused=True) == [2, 4, 8, 16, 32, *[LONGEST_PAUSE] * 4]
    clock.seconds += LONGEST_PAUSE
    assert lookout.due()
    lookout.looked(refused=False)
    assert pauses_after_success(lookout, clock) == 1


def pauses_after_success(lookout: Lookout, clock: Clock) -> float:
    since = clock.seconds
    while not lookout.due():
        clock.seconds += 0.5
    return clock.seconds - since


def test_another_newest_version_is_looked_at_at_once(lookout: Lookout, clock: Clock) -> None:
    pauses(lookout, clock, 5, refused=True)
    assert not lookout.due()
    (lookout.registry / "LATEST").write_bytes(b"000002-r0002\n")
    assert lookout.due()
    lookout.looked(refused=True)
    assert not lookout.due()


def test_one_that_is_named_while_the_look_goes_on_is_not_missed(lookout: Lookout, clock: Clock) -> None:
    pauses(lookout, clock, 5, refused=True)
    clock.seconds += LONGEST_PAUSE
    assert lookout.due()
    (lookout.registry / "LATEST").write_bytes(b"000002-r0002\n")
    lookout.looked(refused=True)
    assert lookout.due()


@pytest.mark.parametrize("kind", ["absent", "folder", "link", "pipe"])
def test_whatever_stands_in_the_place_of_latest_is_no_error_and_never_waited_for(
    lookout: Lookout, clock: Clock, kind: str
) -> None:
    pauses(lookout, clock, 3, refused=True)
    path = lookout.registry / "LATEST"
    path.unlink()
    {
        "absent": lambda: None,
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("elsewhere"),
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    assert lookout.due()
    lookout.looked(refused=True)
    assert not lookout.due()
