import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from common.certificates import load_certificate
from common.device_api.refusals import (
    REASON,
    ClockWrong,
    DeviceRevoked,
    EnrolmentError,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    NotEnrolled,
    ServerUnreachable,
    TooManyAttempts,
    WrongAuthority,
)
from common.errors import ConfigError
from fl_client.enrolment import enrol, plain_name, refused
from fl_client.membership import load_membership
from fl_server.authority import Authority
from fl_server.device_api import Limits
from tests.membership import FLEET_PORT, Clock, serving
from tests.publishing import KEY

pytestmark = pytest.mark.network


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(tmp_path, clock):
    with serving(tmp_path / "server", clock) as running:
        yield running


def test_a_join_code_is_all_that_a_device_needs(server, tmp_path):
    membership = enrol(server.code().encode(), tmp_path / "home", "Anna's laptop")
    assert (membership.address, membership.fleet_port) == ("127.0.0.1", FLEET_PORT)
    assert (membership.enrol_port, membership.device_port) == (server.api.enrol_port, server.api.device_port)
    assert membership.publisher == KEY.public
    (device,) = server.members.roster.devices()
    assert device.name == membership.device_name == "Anna-s-laptop"
    assert device.flower_key_bytes == membership.flower_public_key_file.read_bytes()
    assert membership.ca_file.read_bytes() == server.members.authority.ca_pem
    load_certificate(membership.device_certificate_file.read_bytes()).verify_directly_issued_by(
        server.members.authority.ca.certificate
    )
    assert load_membership(tmp_path / "home") == membership


def test_keys_are_made_on_the_device_and_never_leave_it(server, tmp_path):
    membership = enrol(server.code(), tmp_path / "home", "laptop")
    assert stat.S_IMODE(membership.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in membership.home.iterdir()} == {0o600}
    private, public = membership.flower_keys()
    assert private.public_key() == public
    kept = b"".join(path.read_bytes() for path in server.folder.path.rglob("*") if path.is_file())
    for name in ("flower.key", "device.key"):
        secret = (membership.home / name).read_bytes().splitlines()[1]
        assert secret not in kept


def test_a_used_code_lets_no_second_device_in(server, tmp_path):
    code = server.code()
    enrol(code, tmp_path / "one", "one")
    with pytest.raises(InvitationUsed):
        enrol(code, tmp_path / "two", "two")
    with pytest.raises(NotEnrolled):
        load_membership(tmp_path / "two")


def test_of_devices_that_redeem_one_code_at_once_one_gets_in(server, tmp_path):
    code = server.code()

    def attempt(number):
        try:
            return enrol(code, tmp_path / str(number), "x").device_name
        except InvitationUsed:
            return None

    with ThreadPoolExecutor(5) as pool:
        assert sum(name is not None for name in pool.map(attempt, range(5))) == 1
    assert len(server.members.roster.devices()) == 1


def test_an_expired_code_is_told(server, tmp_path, clock):
    code = server.code(timedelta(minutes=1))
    clock.offset = timedelta(minutes=2)
    with pytest.raises(InvitationExpired):
        enrol(code, tmp_path / "home", "laptop", now=clock)


def test_a_forged_code_is_told(server, tmp_path):
    with pytest.raises(InvitationUnknown):
        enrol(replace(server.code(), token="00" * 16), tmp_path / "home", "laptop")


def test_who_is_not_the_server_of_the_code_gets_nothing_sent(server, tmp_path):
    other = Authority.load_or_create(tmp_path / "other", ("127.0.0.1",), Clock())
    with pytest.raises(WrongAuthority):
        enrol(replace(server.code(), fingerprint=other.fingerprint), tmp_path / "home", "laptop")
    assert not (tmp_path / "home").exists()
    assert len(server.members.invitations.open_invitations()) == 1


def test_a_certificate_for_another_address_is_told(tmp_path):
    with serving(tmp_path / "server", names=("192.0.2.9",)) as server, pytest.raises(WrongAuthority, match=r"192\.0\.2\.9"):
        enrol(server.code(), tmp_path / "home", "laptop")


def test_a_server_that_does_not_run_is_told(server, tmp_path):
    code = server.code()
    server.api.stop()
    with pytest.raises(ServerUnreachable, match=f"port {code.port}"):
        enrol(code, tmp_path / "home", "laptop")


def test_a_name_that_nobody_has_is_told(server, tmp_path):
    with pytest.raises(ServerUnreachable, match=r"nowhere\.invalid"):
        enrol(replace(server.code(), address="nowhere.invalid"), tmp_path / "home", "laptop")


@contextmanager
def answering(reply):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                if reply is not None:
                    connection.recv(4096)
                    connection.sendall(reply)
                else:
                    done.wait(5)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["another protocol", "hangs up", "silent"]
)
def test_something_else_on_the_port_is_told(server, tmp_path, reply):
    with answering(reply) as port, pytest.raises(ServerUnreachable):
        enrol(replace(server.code(), port=port), tmp_path / "home", "laptop", timeout_seconds=0.5)


@pytest.mark.parametrize(
    ("minutes", "words"), [(10, "10 minutes ahead"), (-9, "9 minutes behind"), (-60 * 24, "behind"), (60 * 24 * 500, "clock")]
)
def test_a_wrong_clock_is_told_and_costs_no_code(server, tmp_path, minutes, words):
    with pytest.raises(ClockWrong, match=words):
        enrol(server.code(), tmp_path / "home", "laptop", now=Clock(timedelta(minutes=minutes)))
    assert len(server.members.invitations.open_invitations()) == 1


def test_a_device_that_lost_the_answer_enrols_again_with_the_same_code(server, tmp_path):
    code = server.code()
    enrol(code, tmp_path / "home", "laptop")
    for name in ("membership.json", "device.pem"):
        (tmp_path / "home" / name).unlink()
    assert enrol(code, tmp_path / "home", "laptop").device_name == "laptop"
    assert len(server.members.roster.devices()) == 1


def test_a_member_that_is_given_its_old_code_again_stays_a_member(server, tmp_path, clock):
    code = server.code()
    membership = enrol(code, tmp_path / "home", "laptop")
    clock.offset = timedelta(hours=2)
    assert enrol(code, tmp_path / "home", "laptop", now=clock) == membership
    server.api.stop()
    assert enrol(code, tmp_path / "home", "laptop") == membership


@pytest.mark.parametrize("trouble", ["attempts", "clock", "authority", "unknown"])
def test_a_member_whose_new_code_fails_stays_a_member_and_says_so(tmp_path, trouble):
    limits, said = Limits(failures_per_minute=1), []
    with serving(tmp_path / "server", limits=limits) as server:
        code = server.code()
        membership = enrol(code, tmp_path / "home", "laptop")
        forged = replace(code, token="00" * 16)
        again, now = server.code(), Clock()
        if trouble == "attempts":
            with pytest.raises(InvitationUnknown):
                enrol(forged, tmp_path / "stranger", "stranger")
            with pytest.raises(TooManyAttempts):
                enrol(again, tmp_path / "stranger", "stranger")
        elif trouble == "clock":
            now.offset = timedelta(minutes=10)
        elif trouble == "unknown":
            again = forged
        if trouble == "authority":
            with serving(tmp_path / "other", limits=limits) as other:
                found = enrol(replace(again, port=other.api.enrol_port), tmp_path / "home", "laptop", say=said.append)
        else:
            found = enrol(again, tmp_path / "home", "laptop", now=now, say=said.append)
    assert found == membership
    words = {"attempts": "Too many", "clock": "10 minutes ahead", "authority": "not the server", "unknown": "does not know"}
    assert len(said) == 1
    assert said[0].startswith("This device is a member already and stays one")
    assert words[trouble] in said[0]


@pytest.mark.parametrize("reason", [InvitationUnknown.code, "something-new"])
def test_a_servers_sentence_cannot_steer_the_terminal(reason):
    class Refused(grpc.RpcError):
        def trailing_metadata(self):
            return ((REASON, reason),)

        def details(self):
            return "\x1b]0;owned\x07\x1b[2JAll is well.\r\n" + "x" * 5000

    sentence = str(refused(Refused(), "example.org"))
    assert sentence.isprintable()
    assert "All is well." in sentence
    assert len(sentence) <= 500


def test_a_revoked_device_is_told_and_leaves_the_code_to_others(server, tmp_path):
    enrol(server.code(), tmp_path / "home", "laptop")
    server.members.roster.revoke("laptop")
    code = server.code()
    with pytest.raises(DeviceRevoked):
        enrol(code, tmp_path / "home", "laptop")
    assert enrol(code, tmp_path / "other", "laptop").device_name == "laptop-2"


def test_a_member_of_one_server_does_not_slip_into_another(server, tmp_path):
    enrol(server.code(), tmp_path / "home", "laptop")
    with serving(tmp_path / "second") as second, pytest.raises(ConfigError, match="belongs to the server"):
        enrol(second.code(), tmp_path / "home", "laptop")


def test_a_typing_error_is_told_before_anything_is_asked(tmp_path):
    with pytest.raises(ConfigError, match="join code"):
        enrol("MFRGG", tmp_path / "home", "laptop")
    assert not (tmp_path / "home").exists()


def test_who_guesses_codes_is_slowed_down(tmp_path):
    with serving(tmp_path / "server", limits=Limits(failures_per_minute=3)) as server:
        good = server.code()
        for number in range(3):
            with pytest.raises(InvitationUnknown):
                enrol(replace(good, token=f"{number:032x}"), tmp_path / "home", "laptop")
        with pytest.raises(TooManyAttempts):
            enrol(good, tmp_path / "home", "laptop")


def test_each_failure_is_one_sentence_with_an_exit_code():
    kinds = (ClockWrong, DeviceRevoked, InvitationExpired, InvitationUnknown, InvitationUsed, ServerUnreachable, WrongAuthority)
    assert len({str(kind()) for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert issubclass(kind, EnrolmentError)
        assert kind.exit_code > 0
        assert "\n" not in str(kind())


def test_without_a_membership_there_is_a_sentence(tmp_path):
    with pytest.raises(NotEnrolled, match="--join"):
        load_membership(tmp_path)


@pytest.mark.parametrize("name", ["membership.json", "ca.pem", "device.pem", "device.key", "flower.key"])
def test_a_damaged_membership_names_the_file(server, tmp_path, name):
    enrol(server.code(), tmp_path / "home", "laptop")
    (tmp_path / "home" / name).write_bytes(b"{}")
    with pytest.raises(ConfigError, match=name):
        load_membership(tmp_path / "home")


@pytest.mark.parametrize("name", ["device.key", "flower.key"])
def test_a_key_that_others_may_read_is_refused(server, tmp_path, name):
    enrol(server.code(), tmp_path / "home", "laptop")
    (tmp_path / "home" / name).chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        load_membership(tmp_path / "home")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("Anna's phone", "Anna-s-phone"), ("", "device"), ("--", "device"), ("日本", "device"), ("x" * 60, "x" * 40)],
)
def test_any_name_becomes_one_that_the_server_takes(given, kept):
    assert plain_name(given) == kept
