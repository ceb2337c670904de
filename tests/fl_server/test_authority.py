import stat
from datetime import timedelta

import pytest

from common.certificates import load_certificate, make_request, names_of, new_key
from common.device_api.refusals import RequestMalformed
from common.errors import ConfigError, RunError
from fl_server.authority import Authority
from tests.membership import Clock

NAMES = ("127.0.0.1", "lab.example")


def server_certificate(authority):
    return load_certificate(authority.certificate_file.read_bytes())


def test_the_same_authority_and_certificate_come_back(tmp_path):
    first = Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    again = Authority.load_or_create(tmp_path / "a", ("LAB.example", "127.0.0.1"), Clock())
    assert again.fingerprint == first.fingerprint
    assert server_certificate(again) == server_certificate(first)


def test_nothing_of_it_is_open_to_other_users(tmp_path):
    Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()}
    assert set(modes) == {"ca.pem", "ca.key", "server.pem", "server.key", ".lock"}
    assert set(modes.values()) == {0o600}


def test_other_names_get_another_certificate_of_the_same_authority(tmp_path):
    first = Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    old = server_certificate(first)
    second = Authority.load_or_create(tmp_path / "a", ("10.0.0.1",), Clock())
    assert names_of(server_certificate(second)) == ("10.0.0.1",)
    assert server_certificate(second) != old
    assert second.fingerprint == first.fingerprint


def test_a_start_renews_a_certificate_that_has_under_180_days_left_and_no_other(tmp_path):
    clock = Clock()
    old = server_certificate(Authority.load_or_create(tmp_path / "a", NAMES, clock))
    clock.offset = timedelta(days=397 - 181)
    assert server_certificate(Authority.load_or_create(tmp_path / "a", NAMES, clock)) == old
    clock.offset = timedelta(days=397 - 179)
    assert server_certificate(Authority.load_or_create(tmp_path / "a", NAMES, clock)) != old


def test_a_server_that_was_not_started_for_a_year_says_when_its_certificate_ends(tmp_path):
    clock = Clock()
    authority = Authority.load_or_create(tmp_path / "a", NAMES, clock)
    clock.offset = timedelta(days=397 - 31)
    assert authority.warning() is None
    clock.offset = timedelta(days=397 - 29)
    assert f"{server_certificate(authority).not_valid_after_utc:%Y-%m-%d}" in str(authority.warning())


def test_a_crash_between_key_and_certificate_is_mended(tmp_path):
    authority = Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    authority.key_file.write_bytes(Authority.load_or_create(tmp_path / "b", NAMES, Clock()).key_file.read_bytes())
    old = server_certificate(authority)
    assert server_certificate(Authority.load_or_create(tmp_path / "a", NAMES, Clock())) != old


def test_a_certificate_of_another_authority_is_replaced(tmp_path):
    authority, other = (Authority.load_or_create(tmp_path / name, NAMES, Clock()) for name in "ab")
    for name in ("certificate_file", "key_file"):
        getattr(authority, name).write_bytes(getattr(other, name).read_bytes())
    again = Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    server_certificate(again).verify_directly_issued_by(again.ca.certificate)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    (tmp_path / "a" / "ca.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Authority.load_or_create(tmp_path / "a", NAMES, Clock())


@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
def test_a_damaged_authority_is_never_replaced_silently(tmp_path, name):
    Authority.load_or_create(tmp_path / "a", NAMES, Clock())
    (tmp_path / "a" / name).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=name):
        Authority.load_or_create(tmp_path / "a", NAMES, Clock())


def test_a_key_of_another_authority_is_refused(tmp_path):
    for name in "ab":
        Authority.load_or_create(tmp_path / name, NAMES, Clock())
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="does not belong"):
        Authority.load(tmp_path / "a", Clock())


def test_where_no_server_was_started_there_is_no_authority(tmp_path):
    with pytest.raises(RunError, match="fl-server start"):
        Authority.load(tmp_path / "a", Clock())
    assert not (tmp_path / "a").exists()


def test_a_bad_name_makes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="neither"):
        Authority.load_or_create(tmp_path / "a", ("a b",), Clock())
    assert not (tmp_path / "a").exists()


def test_only_a_request_signed_by_its_own_key_gets_a_certificate(tmp_path):
    authority, key = Authority.load_or_create(tmp_path / "a", NAMES, Clock()), new_key()
    certificate = authority.issue_device(make_request(key), "laptop")
    certificate.verify_directly_issued_by(authority.ca.certificate)
    assert certificate.public_key() == key.public_key()
    with pytest.raises(RequestMalformed):
        authority.issue_device(b"give me one", "laptop")
