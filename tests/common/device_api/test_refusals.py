from pathlib import Path

import pytest

from common.device_api.proof import check_clock, enrolment_proof
from common.device_api.refusals import FROM_SERVER, ClockWrong, EnrolmentError, InvitationUsed, refusal

PROTO = Path(__file__).parents[3] / "fl_server" / "device_api.proto"


def test_every_refusal_comes_back_from_its_code_with_its_sentence():
    for kind in FROM_SERVER:
        again = refusal(kind.code, str(kind()))
        assert type(again) is kind
        assert str(again) == kind.sentence


def test_codes_are_all_different_and_documented_for_other_languages():
    codes = [kind.code for kind in FROM_SERVER]
    assert len(set(codes)) == len(codes)
    text = PROTO.read_text()
    assert [code for code in codes if f"//   {code} " not in text] == []


def test_a_code_of_a_newer_server_still_gives_its_sentence():
    error = refusal("moon-phase", "Come back later.")
    assert type(error) is EnrolmentError
    assert str(error) == "Come back later."


def test_a_refusal_without_a_sentence_has_its_own():
    assert str(refusal("invitation-used", "")) == InvitationUsed.sentence


@pytest.mark.parametrize("ahead", [4.0, 0.0, -300.0])
def test_a_clock_that_flower_would_take_is_taken(ahead):
    check_clock(1e9 + ahead, 1e9)


@pytest.mark.parametrize(
    ("ahead", "words"), [(5.0, "5 s ahead of"), (600.0, "10 minutes ahead of"), (-301.0, "5 minutes behind"), (1e9, "ahead of")]
)
def test_a_clock_that_is_off_is_told_by_how_much(ahead, words):
    with pytest.raises(ClockWrong, match=words):
        check_clock(1e9 + ahead, 1e9)


def test_the_proof_binds_token_and_request():
    proofs = {enrolment_proof(token, request) for token in (b"a" * 16, b"b" * 16) for request in (b"x", b"y")}
    assert len(proofs) == 4
    assert enrolment_proof(b"a" * 16, b"x").startswith(b"emofl-enrol-v1\0" + b"a" * 16)
