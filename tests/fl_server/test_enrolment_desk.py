from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

from common.certificates import load_certificate, make_request, new_key, public_der, public_pem, serial_of
from common.device_api import device_api_pb2 as pb
from common.device_api.proof import enrolment_proof
from common.device_api.refusals import ClockWrong, DeviceRevoked, InvitationUsed, RequestMalformed, TooManyAttempts
from fl_server.authority import Authority
from fl_server.enrolment_desk import Attempts, EnrolmentDesk, Members
from fl_server.invitations import Invitations
from fl_server.roster import Roster
from tests.membership import Clock
from tests.publishing import KEY


@pytest.fixture
def desk(tmp_path):
    clock = Clock()
    authority = Authority.load_or_create(tmp_path / "a", ("127.0.0.1",), clock)
    members = Members(authority, Invitations(tmp_path / "i.json", clock), Roster(tmp_path / "d.json", clock), KEY.public)
    return EnrolmentDesk(members, now=clock)


def request(desk, code=None, flower=None, key=None, **changes):
    flower, key = flower or new_key(), key or new_key()
    token = bytes.fromhex(code or desk.members.invitations.create(timedelta(hours=1)))
    csr = make_request(key)
    values = {
        "token": token,
        "device_name": "laptop",
        "certificate_request": csr,
        "flower_key": public_der(flower.public_key()),
        "flower_proof": flower.sign(enrolment_proof(token, csr), ECDSA(hashes.SHA384())),
        "clock_ms": int(desk.now().timestamp() * 1000),
    }
    return pb.EnrollRequest(**values | changes)


def still_open(desk):
    return len(desk.members.invitations.open_invitations())


def test_a_good_request_makes_a_member_with_a_certificate_of_this_authority(desk):
    flower, key = new_key(), new_key()
    reply = desk.enrol(request(desk, flower=flower, key=key), 8443, 8445)
    certificate = load_certificate(reply.certificate)
    certificate.verify_directly_issued_by(desk.members.authority.ca.certificate)
    assert certificate.public_key() == key.public_key()
    device = desk.members.roster.member(serial_of(certificate))
    assert device.flower_key_bytes == public_pem(flower.public_key())
    assert (reply.device_name, reply.fleet_port, reply.device_port) == ("laptop", 8443, 8445)
    assert reply.publisher_key == KEY.public.raw


def test_a_lost_answer_is_asked_for_again_with_the_same_keys(desk):
    flower, token = new_key(), desk.members.invitations.create(timedelta(hours=1))
    for _ in range(2):
        desk.enrol(request(desk, token, flower), 1, 1)
    assert len(desk.members.roster.devices()) == 1
    with pytest.raises(InvitationUsed):
        desk.enrol(request(desk, token), 1, 1)


def proof_of(key, token, csr):
    return key.sign(enrolment_proof(token, csr), ECDSA(hashes.SHA384()))


@pytest.mark.parametrize(
    "changes",
    [
        {"flower_proof": b""},
        {"flower_proof": b"x" * 100},
        {"flower_key": b""},
        {"flower_key": b"x"},
        {"certificate_request": b""},
        {"certificate_request": b"\x30\x00"},
        {"token": b""},
        {"token": b"x" * 17},
        {"device_name": ""},
        {"device_name": "a b"},
        {"device_name": "x" * 41},
    ],
)
def test_a_malformed_request_is_refused_and_uses_nothing_up(desk, changes):
    with pytest.raises(RequestMalformed):
        desk.enrol(request(desk, **changes), 1, 1)
    assert still_open(desk) == 1
    assert desk.members.roster.devices() == ()


def test_nobody_enrols_a_flower_key_that_is_not_his(desk):
    victim, thief = new_key(), new_key()
    token = desk.members.invitations.create(timedelta(hours=1))
    good = request(desk, token)
    with pytest.raises(RequestMalformed, match="private key"):
        desk.enrol(
            request(
                desk,
                token,
                flower_key=public_der(victim.public_key()),
                flower_proof=proof_of(thief, good.token, good.certificate_request),
            ),
            1,
            1,
        )


def test_a_proof_holds_for_one_token_and_one_certificate_request_only(desk):
    flower = new_key()
    first = request(desk, flower=flower)
    for changes in ({"certificate_request": make_request(new_key())}, {"token": bytes(16)}):
        again = pb.EnrollRequest()
        again.CopyFrom(first)
        again.MergeFrom(pb.EnrollRequest(**changes))
        with pytest.raises(RequestMalformed, match="private key"):
            desk.enrol(again, 1, 1)


def test_one_key_cannot_serve_both_purposes(desk):
    key = new_key()
    with pytest.raises(RequestMalformed, match="two purposes"):
        desk.enrol(request(desk, flower=key, key=key), 1, 1)


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_wrong_clock_uses_nothing_up(desk, minutes):
    wrong = int((desk.now() + timedelta(minutes=minutes)).timestamp() * 1000)
    with pytest.raises(ClockWrong, match="10 minutes"):
        desk.enrol(request(desk, clock_ms=wrong), 1, 1)
    assert still_open(desk) == 1


@pytest.mark.parametrize("clock_ms", [2**63 - 1, -(2**63), 0])
def test_an_absurd_clock_is_a_wrong_clock(desk, clock_ms):
    with pytest.raises(ClockWrong):
        desk.enrol(request(desk, clock_ms=clock_ms), 1, 1)


def test_a_revoked_key_is_refused_and_uses_nothing_up(desk):
    flower = new_key()
    desk.enrol(request(desk, flower=flower), 1, 1)
    desk.members.roster.revoke("laptop")
    with pytest.raises(DeviceRevoked):
        desk.enrol(request(desk, flower=flower), 1, 1)
    assert still_open(desk) == 1


def test_an_address_that_fails_too_often_waits_a_minute_and_others_do_not():
    seconds = [0.0]
    attempts = Attempts(3, lambda: seconds[0])
    for _ in range(3):
        attempts.check("ipv4:192.0.2.1:1000")
        attempts.failed("ipv4:192.0.2.1:1000")
    with pytest.raises(TooManyAttempts):
        attempts.check("ipv4:192.0.2.1:2000")
    attempts.check("ipv4:192.0.2.2:1000")
    seconds[0] = 61.0
    attempts.check("ipv4:192.0.2.1:1000")


def test_an_ipv6_network_counts_as_one_address():
    attempts = Attempts(1)
    attempts.failed("ipv6:%5B2001:db8::1%5D:1000")
    with pytest.raises(TooManyAttempts):
        attempts.check("ipv6:%5B2001:db8::ffff%5D:1")
    attempts.check("ipv6:%5B2001:db8:0:1::1%5D:1000")


def test_a_flood_of_addresses_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr("fl_server.enrolment_desk.ADDRESSES", 5)
    attempts = Attempts(2)
    for number in range(50):
        attempts.failed(f"ipv4:10.0.0.{number}:1")
    assert len(attempts._failures) == 5
