import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from common.device_api.refusals import EnrolmentError, InvitationExpired, InvitationUnknown, InvitationUsed
from common.errors import ConfigError, IntegrityError
from fl_server.invitations import Invitations
from tests.membership import Clock

HOUR = timedelta(hours=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def invitations(tmp_path, clock):
    return Invitations(tmp_path / "invitations.json", clock)


def test_a_token_lets_one_device_in_and_no_second(invitations):
    token = invitations.create(HOUR)
    invitations.redeem(token, "one")
    with pytest.raises(InvitationUsed):
        invitations.redeem(token, "two")


def test_the_same_device_may_ask_again_because_an_answer_can_be_lost(invitations, clock):
    token = invitations.create(HOUR)
    invitations.redeem(token, "one")
    invitations.redeem(token, "one")
    clock.offset = 2 * HOUR
    with pytest.raises(InvitationExpired):
        invitations.redeem(token, "one")


def test_a_token_ends(invitations, clock):
    token = invitations.create(HOUR)
    clock.offset = HOUR
    with pytest.raises(InvitationExpired):
        invitations.redeem(token, "one")


@pytest.mark.parametrize("token", ["", "00" * 16, "ff" * 16])
def test_a_token_that_nobody_made_is_unknown(invitations, token):
    invitations.create(HOUR)
    with pytest.raises(InvitationUnknown):
        invitations.redeem(token, "one")


def test_who_reads_the_file_finds_no_token(invitations):
    token = invitations.create(HOUR)
    content = invitations.path.read_bytes()
    assert token.encode() not in content
    assert bytes.fromhex(token) not in content
    assert stat.S_IMODE(invitations.path.stat().st_mode) == 0o600
    for digest in [i.token_sha256 for i in invitations.open_invitations()]:
        with pytest.raises(InvitationUnknown):
            invitations.redeem(digest, "thief")


def test_of_many_threads_one_redeems(invitations):
    token = invitations.create(HOUR)

    def attempt(number):
        try:
            Invitations(invitations.path, invitations.now).redeem(token, str(number))
        except InvitationUsed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1


PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from common.device_api.refusals import InvitationUsed
from fl_server.invitations import Invitations
invitations = Invitations(Path(sys.argv[1]), lambda: datetime.now(UTC))
won = 0
for token in sys.argv[3:]:
    try:
        invitations.redeem(token, sys.argv[2])
        won += 1
    except InvitationUsed:
        pass
print(won)
"""


def test_of_several_processes_one_redeems(invitations):
    tokens = [invitations.create(HOUR) for _ in range(20)]
    command = [sys.executable, "-c", PROGRAM, str(invitations.path)]
    root = Path(__file__).parents[2]
    running = [subprocess.Popen([*command, name, *tokens], cwd=root, stdout=subprocess.PIPE, text=True) for name in "abc"]
    won = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(won) == len(tokens)


def test_old_invitations_are_forgotten_in_the_end(invitations, clock):
    token = invitations.create(HOUR)
    clock.offset = timedelta(days=31)
    invitations.create(HOUR)
    with pytest.raises(InvitationUnknown):
        invitations.redeem(token, "one")


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=59), timedelta(days=30, seconds=1), -HOUR])
def test_a_lifetime_out_of_range_is_refused(invitations, lifetime):
    with pytest.raises(ConfigError):
        invitations.create(lifetime)
    assert not invitations.path.exists()


def test_open_invitations_are_those_that_can_still_be_used(invitations, clock):
    used = invitations.create(HOUR)
    invitations.create(3 * HOUR)
    invitations.create(2 * HOUR)
    invitations.redeem(used, "one")
    found = invitations.open_invitations()
    assert [round((i.expires - clock()).total_seconds() / 3600) for i in found] == [2, 3]
    clock.offset = 2 * HOUR + timedelta(minutes=1)
    assert len(invitations.open_invitations()) == 1


def test_a_damaged_file_lets_nobody_in(invitations):
    token = invitations.create(HOUR)
    invitations.path.write_text('{"invitations": 3}')
    with pytest.raises(IntegrityError, match="damaged"):
        invitations.redeem(token, "one")


def test_each_failure_has_its_own_sentence_and_exit_code():
    kinds = (InvitationExpired, InvitationUnknown, InvitationUsed)
    assert len({str(kind()) for kind in kinds}) == 3
    assert all(issubclass(kind, EnrolmentError) and kind.exit_code == 11 for kind in kinds)
