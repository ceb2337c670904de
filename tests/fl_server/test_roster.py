import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.certificates import new_key, public_pem
from common.device_api.refusals import DeviceRevoked, DeviceUnknown, RequestMalformed
from common.errors import ConfigError, IntegrityError
from fl_server.roster import Roster
from tests.membership import Clock


@pytest.fixture
def roster(tmp_path):
    return Roster(tmp_path / "devices.json", Clock())


def test_a_device_is_found_by_its_certificate(roster):
    device = roster.add("laptop", b"key one", "a1")
    assert roster.member("a1") == device
    assert roster.devices() == (device,)
    assert not device.revoked
    with pytest.raises(DeviceUnknown):
        roster.member("a2")


def test_its_flower_key_is_kept_as_flower_writes_keys(roster):
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key = new_key().public_key()
    device = roster.add("laptop", public_pem(key), "a1")
    assert device.flower_key_bytes == public_key_to_bytes(key)


def test_a_revoked_device_is_no_member_and_stays_on_the_list(roster):
    roster.add("laptop", b"key one", "a1")
    revoked = roster.revoke("laptop")
    assert revoked.revoked
    assert roster.devices() == (revoked,)
    with pytest.raises(DeviceRevoked):
        roster.member("a1")
    assert roster.revoke("laptop") == revoked


def test_a_revoked_key_cannot_come_back_under_another_name_or_certificate(roster):
    roster.add("laptop", b"key one", "a1")
    roster.revoke("laptop")
    with pytest.raises(DeviceRevoked):
        roster.add("tablet", b"key one", "a2")
    with pytest.raises(DeviceRevoked):
        roster.refuse_revoked(b"key one")
    with pytest.raises(DeviceUnknown):
        roster.member("a2")


def test_a_device_that_enrols_again_keeps_its_name_and_its_old_certificate_ends(roster):
    roster.add("laptop", b"key one", "a1")
    again = roster.add("other", b"key one", "a2")
    assert (again.name, len(roster.devices())) == ("laptop", 1)
    assert roster.member("a2").name == "laptop"
    with pytest.raises(DeviceUnknown):
        roster.member("a1")


def test_a_taken_name_gets_a_number_also_when_its_device_was_revoked(roster):
    names = [roster.add(name, f"key {i}".encode(), f"a{i}").name for i, name in enumerate(["pi", "pi", "PI", "x" * 40, "x" * 40])]
    assert names == ["pi", "pi-2", "PI-3", "x" * 40, "x" * 38 + "-2"]
    roster.revoke("pi")
    assert roster.add("pi", b"key new", "b1").name == "pi-4"


@pytest.mark.parametrize("name", ["", " ", "-a", "a b", "a/b", "../x", "x" * 41, "[red]", "a\n", "ä"])
def test_a_name_that_is_none_is_refused(roster, name):
    with pytest.raises(RequestMalformed):
        roster.add(name, b"key", "a1")
    assert roster.devices() == ()


def test_an_unknown_device_cannot_be_revoked(roster):
    with pytest.raises(ConfigError, match="fl-server devices"):
        roster.revoke("nobody")


def test_the_revocation_of_another_process_holds_at_once(roster):
    roster.add("laptop", b"key one", "a1")
    assert roster.member("a1").name == "laptop"
    program = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path; from fl_server.roster import Roster; "
        "Roster(Path(sys.argv[1]), lambda: datetime.now(UTC)).revoke('laptop')"
    )
    subprocess.run([sys.executable, "-c", program, str(roster.path)], cwd=Path(__file__).parents[2], check=True, timeout=60)
    with pytest.raises(DeviceRevoked):
        roster.member("a1")


def test_devices_that_enrol_at_once_are_all_kept(roster):
    with ThreadPoolExecutor(8) as pool:
        devices = list(pool.map(lambda i: Roster(roster.path, roster.now).add("pi", f"key {i}".encode(), f"{i:x}"), range(24)))
    assert len({device.name for device in devices}) == 24
    assert set(roster.devices()) == set(devices)


def test_a_damaged_file_lets_nobody_in(roster):
    roster.add("laptop", b"key one", "a1")
    roster.path.write_text("{}x")
    with pytest.raises(IntegrityError, match="damaged"):
        roster.member("a1")


def test_the_file_is_for_its_owner_alone(roster):
    roster.add("laptop", b"key one", "a1")
    assert stat.S_IMODE(roster.path.stat().st_mode) == 0o600
