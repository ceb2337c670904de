from dataclasses import replace

import pytest

from common.errors import IntegrityError
from common.secagg.keys import Session
from common.secagg.roster import (
    Roster,
    advertise,
    check_advertisement,
    check_directory,
    check_inputs,
    check_survivors,
    make_directory,
    sign_input,
    sign_survivors,
)
from tests.common.secagg.rehearsal import identities, make_terms

KEYS = identities(4)
TERMS = make_terms(KEYS)
SESSION = Session("run", 1, TERMS.digest, b"\x0b" * 32)
OTHERS = [
    replace(SESSION, run="x"),
    replace(SESSION, round=2),
    replace(SESSION, terms=bytes(32)),
    replace(SESSION, directory=bytes(32)),
]
SHARERS, SURVIVORS = (0, 1, 2, 3), (0, 1, 2)


def test_advertised_keys_come_back_with_the_identity_that_signed_them() -> None:
    message = advertise(TERMS, 2, b"\x01" * 32, b"\x02" * 32, KEYS[2])
    found = check_advertisement(TERMS, message)
    assert (found.identity, found.mask_key, found.share_key) == (KEYS[2].public.raw, b"\x01" * 32, b"\x02" * 32)
    assert check_directory(TERMS, make_directory({2: message})) == {2: found}


@pytest.mark.parametrize("change", [{"member": 1}, {"mask_key": bytes(32)}, {"share_key": bytes(32)}, {"signature": bytes(64)}])
def test_an_advertisement_holds_for_what_was_signed_alone(change: dict[str, int | bytes]) -> None:
    message = advertise(TERMS, 2, b"\x01" * 32, b"\x02" * 32, KEYS[2])
    with pytest.raises(IntegrityError, match="signature does not hold"):
        check_advertisement(TERMS, replace(message, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"run": "x"}, {"number": 2}, {"length": 3}])
def test_an_advertisement_holds_for_its_own_terms_alone(change: dict[str, int | str]) -> None:
    message = advertise(TERMS, 2, b"\x01" * 32, b"\x02" * 32, KEYS[2])
    for terms in (make_terms(KEYS, **change), replace(TERMS, request=b"\x01" * 32)):  # type: ignore[arg-type]
        with pytest.raises(IntegrityError, match="signature does not hold"):
            check_advertisement(terms, message)


def test_a_signature_under_a_masked_input_holds_for_its_session_member_and_sharers_alone() -> None:
    signature = sign_input(SESSION, SHARERS, 1, KEYS[1])
    check_inputs(TERMS, SESSION, SHARERS, ((1, signature),))
    wrong = [(session, SHARERS, 1) for session in OTHERS] + [(SESSION, SURVIVORS, 1), (SESSION, SHARERS, 2)]
    for session, sharers, member in wrong:
        with pytest.raises(IntegrityError, match="signature does not hold"):
            check_inputs(TERMS, session, sharers, ((member, signature),))


def test_a_confirmation_holds_for_its_session_member_and_both_lists_alone() -> None:
    signature = sign_survivors(SESSION, SHARERS, SURVIVORS, 1, KEYS[1])
    check_survivors(TERMS, SESSION, SHARERS, SURVIVORS, ((1, signature),))
    wrong = [(session, SHARERS, SURVIVORS, 1) for session in OTHERS]
    wrong += [(SESSION, SURVIVORS, SURVIVORS, 1), (SESSION, SHARERS, SHARERS, 1), (SESSION, SHARERS, SURVIVORS, 2)]
    for session, sharers, survivors, member in wrong:
        with pytest.raises(IntegrityError, match="signature does not hold"):
            check_survivors(TERMS, session, sharers, survivors, ((member, signature),))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        check_inputs(TERMS, SESSION, SHARERS, ((1, signature),))


def test_a_cohort_with_a_stranger_is_refused() -> None:
    Roster(frozenset(TERMS.cohort)).check_cohort(TERMS)
    with pytest.raises(IntegrityError, match="1 of 4"):
        Roster(frozenset(TERMS.cohort[1:])).check_cohort(TERMS)
