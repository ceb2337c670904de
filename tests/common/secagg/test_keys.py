import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from common.errors import IntegrityError
from common.secagg.keys import SEALED_BYTES, AgreementKey, Session, commitment, seal, unseal
from tests.common.secagg.rehearsal import Stream

ONE, TWO = b"\x01" * 32, b"\x02" * 32
SESSION = Session("run", 3, b"\x0a" * 32, b"\x0b" * 32)
OTHERS = [
    replace(SESSION, run="run2"),
    replace(SESSION, round=4),
    replace(SESSION, terms=b"\x0c" * 32),
    replace(SESSION, directory=b"\x0c" * 32),
]
ALICE, BOB = AgreementKey.generate(Stream(1)), AgreementKey.generate(Stream(2))


def test_both_sides_derive_the_same_mask_seed_of_32_bytes() -> None:
    seed = ALICE.mask_seed(BOB.public, SESSION, ONE, TWO)
    assert seed == BOB.mask_seed(ALICE.public, SESSION, TWO, ONE)
    assert len(seed) == 32


def test_the_derivation_is_hkdf_sha256_over_x25519_written_out() -> None:
    shared = X25519PrivateKey.from_private_bytes(ALICE.raw).exchange(X25519PublicKey.from_public_bytes(BOB.public))
    binding = b"\x00\x03run" + b"\x00\x00\x00\x03" + SESSION.terms + SESSION.directory
    info = b"emofl secagg 1\0pairwise mask\0" + binding + ONE + TWO
    extracted = hmac.digest(SESSION.directory, shared, hashlib.sha256)
    assert ALICE.mask_seed(BOB.public, SESSION, TWO, ONE) == hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_every_part_of_the_session_and_of_the_pair_and_the_purpose_changes_the_key() -> None:
    found = {ALICE.mask_seed(BOB.public, session, ONE, TWO) for session in [SESSION, *OTHERS]}
    found |= {ALICE.sealing_key(BOB.public, session, ONE, TWO) for session in [SESSION, *OTHERS]}
    found |= {ALICE.sealing_key(BOB.public, SESSION, TWO, ONE), ALICE.mask_seed(BOB.public, SESSION, ONE, b"\x03" * 32)}
    assert len(found) == 12


def test_shares_open_for_their_recipient_in_their_session_only() -> None:
    key, shares = ALICE.sealing_key(BOB.public, SESSION, ONE, TWO), bytes(range(72))
    sealed = seal(key, shares, SESSION, ONE, TWO, Stream(3))
    assert len(sealed) == SEALED_BYTES == 100
    assert unseal(BOB.sealing_key(ALICE.public, SESSION, ONE, TWO), sealed, SESSION, ONE, TWO) == shares
    for session in OTHERS:
        with pytest.raises(IntegrityError, match="does not open"):
            unseal(key, sealed, session, ONE, TWO)
    with pytest.raises(IntegrityError, match="does not open"):
        unseal(key, sealed, SESSION, TWO, ONE)


@pytest.mark.parametrize("at", [0, 12, 50, 99])
def test_an_altered_sealed_share_does_not_open(at: int) -> None:
    key = ALICE.sealing_key(BOB.public, SESSION, ONE, TWO)
    sealed = bytearray(seal(key, bytes(72), SESSION, ONE, TWO, Stream(3)))
    sealed[at] ^= 1
    with pytest.raises(IntegrityError, match="does not open"):
        unseal(key, bytes(sealed), SESSION, ONE, TWO)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_public_key_that_would_fix_the_shared_secret_is_refused(point: bytes) -> None:
    with pytest.raises(IntegrityError, match="no usable X25519 key"):
        ALICE.mask_seed(point, SESSION, ONE, TWO)


def test_no_secret_is_in_a_repr() -> None:
    assert ALICE.raw.hex() not in repr(ALICE)
    assert "private" not in repr(ALICE)


def test_a_commitment_is_of_one_seed_owner_and_session() -> None:
    found = {commitment(bytes(32), session, ONE) for session in [SESSION, *OTHERS]}
    found |= {commitment(b"\x01" * 32, SESSION, ONE), commitment(bytes(32), SESSION, TWO)}
    assert len(found) == 7
