import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, IntegrityError
from common.identity import PublicKey, SigningKey, grouped, parse_fingerprint

# RFC 8032, section 7.1: secret key, public key, message, signature of tests 1, 2, 3 and SHA(abc).
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]

KEY = SigningKey.from_seed(bytes(range(32)))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_keys_and_signatures_are_those_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public == PublicKey.from_hex(public)
    assert key.private.sign(bytes.fromhex(message)).hex() == signature
    signed = key.sign("context", bytes.fromhex(message))
    raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    raw.verify(signed, b"context\x00" + bytes.fromhex(message))
    assert signed.hex() != signature


@given(st.binary(max_size=200), st.integers(0, 511), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_signature_holds_for_its_content_alone(content: bytes, bit: int, context: str) -> None:
    signature = KEY.sign(context, content)
    KEY.public.verify(context, content, signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    for wrong in [(context, content + b"x", signature), (context + "x", content, signature), (context, content, bytes(flipped))]:
        with pytest.raises(IntegrityError):
            KEY.public.verify(*wrong)


def test_context_and_content_cannot_trade_bytes() -> None:
    assert KEY.sign("ab", b"c") != KEY.sign("a", b"bc")
    with pytest.raises(ConfigError):
        KEY.sign("a\0b", b"c")
    with pytest.raises(ConfigError):
        KEY.sign("", b"c")
    with pytest.raises(ConfigError):
        KEY.sign("é", b"c")


def test_another_key_and_a_signature_of_another_length_are_refused() -> None:
    signature = KEY.sign("a", b"c")
    with pytest.raises(IntegrityError, match="does not hold for the key"):
        SigningKey.generate().public.verify("a", b"c", signature)
    for wrong in (b"", signature[:-1], signature + b"\0"):
        with pytest.raises(IntegrityError):
            KEY.public.verify("a", b"c", wrong)


def test_a_public_key_reads_back_from_hex_and_pem() -> None:
    assert PublicKey.from_hex(KEY.public.raw.hex()) == KEY.public
    assert PublicKey.from_pem(KEY.public.pem()) == KEY.public


def test_a_fingerprint_is_written_in_groups_and_read_in_any_way() -> None:
    fingerprint = KEY.public.fingerprint
    assert fingerprint == "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"
    assert grouped(fingerprint).split() == [fingerprint[i : i + 4] for i in range(0, 64, 4)]
    assert parse_fingerprint(grouped(fingerprint).upper()) == fingerprint
    assert parse_fingerprint(":".join(fingerprint[i : i + 2] for i in range(0, 64, 2))) == fingerprint
    for wrong in ("", fingerprint[:-1], fingerprint + "0", "g" * 64, "٣" * 64):
        with pytest.raises(ConfigError):
            parse_fingerprint(wrong)


def test_a_public_key_of_another_kind_or_length_is_refused() -> None:
    other = generate_private_key(SECP256R1())
    pem = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(IntegrityError, match="not an Ed25519 key"):
        PublicKey.from_pem(pem)
    for wrong in (b"", b"hello", KEY.public.pem()[:60]):
        with pytest.raises(IntegrityError):
            PublicKey.from_pem(wrong)
    for text in ("", "00" * 31, "zz" * 32):
        with pytest.raises(IntegrityError):
            PublicKey.from_hex(text)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "publisher.pem"
    key = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert SigningKey.load_or_create(path).public == key.public
    assert SigningKey.load_or_create(tmp_path / "other.pem").public != key.public


def test_two_who_make_the_same_key_at_once_agree(tmp_path: Path) -> None:
    found: list[PublicKey] = []
    threads = [
        threading.Thread(target=lambda: found.append(SigningKey.load_or_create(tmp_path / "key").public)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    SigningKey.load_or_create(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError, match=rf"open to other users \(mode {mode:04o}\)"):
        SigningKey.load_or_create(tmp_path / "key")


def test_a_file_that_holds_no_plain_ed25519_key_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    contents = {
        "empty": b"",
        "other": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked": KEY.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
        "long": b"x" * 5000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(ConfigError, match=name):
            SigningKey.load_or_create(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="folder"):
        SigningKey.load_or_create(tmp_path / "folder")
    with pytest.raises(ConfigError, match="cannot be used"):
        SigningKey.load_or_create(tmp_path / "empty" / "key")


def test_no_secret_shows_in_a_repr(tmp_path: Path) -> None:
    key = SigningKey.load_or_create(tmp_path / "key")
    secret = key.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    assert secret.hex() not in repr(key)
    assert repr(key) == "SigningKey()"
