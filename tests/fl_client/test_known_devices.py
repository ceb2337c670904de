import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import IntegrityError, PrivacyError
from fl_client.known_devices import KNOWN, KnownDevicesFile

OWN, A, B, C = (bytes([n]) * 32 for n in (0, 1, 2, 3))


def known(home: Path, accept_new: bool = True, day: int = 1) -> KnownDevicesFile:
    return KnownDevicesFile(home, accept_new, lambda: datetime(2026, 5, day, tzinfo=UTC))


def meet(home: Path, cohort: tuple[bytes, ...], accept_new: bool = True, day: int = 1) -> None:
    found = known(home, accept_new, day)
    assert found.admit(cohort, OWN).enrolled == set(cohort)
    found.remember(cohort, OWN)


def test_whom_it_meets_is_remembered_from_the_first_day(tmp_path: Path) -> None:
    meet(tmp_path, (OWN, A, B))
    meet(tmp_path, (OWN, A, C), day=2)
    found = json.loads((tmp_path / KNOWN).read_text())
    assert {key: when[8:10] for key, when in found.items()} == {A.hex(): "01", B.hex(): "01", C.hex(): "02"}
    assert stat.S_IMODE((tmp_path / KNOWN).stat().st_mode) == 0o600


def test_an_owner_may_want_no_new_ones(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="2 of the 2 other devices"):
        known(tmp_path, accept_new=False).admit((OWN, A, B), OWN)
    meet(tmp_path, (OWN, A, B))
    meet(tmp_path, (OWN, B), accept_new=False)
    with pytest.raises(PrivacyError, match="1 of the 3 other devices"):
        known(tmp_path, accept_new=False).admit((OWN, A, B, C), OWN)


def test_an_invitation_alone_makes_nobody_known(tmp_path: Path) -> None:
    known(tmp_path).admit((OWN, A, B), OWN)
    assert not (tmp_path / KNOWN).exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"a": "b"}', b"\xff", b'{"' + b"0" * 64 + b'": 3}'])
def test_a_damaged_memory_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / KNOWN).write_bytes(damage)
    with pytest.raises(IntegrityError, match="damaged; delete it"):
        known(tmp_path).admit((OWN, A), OWN)
