import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.canonical import encode
from common.config import ModelConfig
from common.errors import IntegrityError
from models.manifest import Cohort, FileEntry, Manifest, PrivacyStatement, parse_manifest
from models.preprocess import Preprocessing
from tests.publishing import PRIVATE, facts_of_round

ENTRY = FileEntry(sha256="ab" * 32, bytes=10)
FILES = {"model.onnx": ENTRY, "model.safetensors": ENTRY}
FIRST: dict[str, Any] = {"schema_version": 1, "sequence": 1, "files": FILES, "previous": None}
MANIFEST = Manifest(**dict(facts_of_round(7)), schema_version=1, sequence=12, files=FILES, previous="cd" * 32)


def changed(path: str, value: Any) -> bytes:
    """The manifest's canonical bytes with one value set, or removed where `value` is Ellipsis."""
    whole = json.loads(MANIFEST.content())
    *parents, last = path.split("/")
    place = whole
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return encode(whole)


def test_a_manifest_reads_back_from_its_bytes() -> None:
    assert parse_manifest(MANIFEST.content()) == MANIFEST
    assert MANIFEST.version == "000012-r0007"


@settings(max_examples=50)
@given(
    st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9._/-]{0,9}\Z"), st.floats(allow_nan=False, allow_infinity=False)),
    st.floats(0, 1e9),
    st.integers(2, 10**9),
)
def test_every_finite_value_reads_back(metrics: dict[str, float], epsilon: float, sequence: int) -> None:
    privacy = PRIVATE.model_copy(update={"epsilon": epsilon})
    facts = dict(facts_of_round(1, metrics=metrics, privacy=privacy))
    manifest = Manifest(**facts, schema_version=1, sequence=sequence, files=FILES, previous="0" * 64)
    assert parse_manifest(manifest.content()) == manifest


def test_a_file_of_more_than_64_mib_is_refused_before_it_is_fetched() -> None:
    assert parse_manifest(changed("files/model.onnx/bytes", 2**26)).files["model.onnx"].bytes == 2**26
    with pytest.raises(IntegrityError, match=r"files\.model\.onnx\.bytes"):
        parse_manifest(changed("files/model.onnx/bytes", 2**26 + 1))


def test_long_numbers_keep_their_order_in_the_name() -> None:
    assert MANIFEST.model_copy(update={"sequence": 1234567, "round": 123456}).version == "1234567-r123456"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("privacy/extra", 1),
        ("preprocessing/extra", 1),
        ("model/extra", 1),
        ("files/model.onnx/extra", 1),
        ("schema_version", 2),
        ("schema_version", ...),
        ("sequence", 0),
        ("sequence", "12"),
        ("sequence", 12.0),
        ("sequence", True),
        ("round", -1),
        ("round", ...),
        ("run", ""),
        ("run", "../x"),
        ("run", "a b"),
        ("run", "a\n"),
        ("created", "2026-01-31"),
        ("created", "2026-13-31T12:00:00Z"),
        ("created", "2026-01-31T12:00:00+00:00"),
        ("created", "2026-01-31T12:00:00Z\n"),
        ("previous", None),
        ("previous", "CD" * 32),
        ("previous", "cd" * 31),
        ("init", "\x1b[31mred"),
        ("cohort", {"asked": 3, "accepted": 4}),
        ("metrics", {"accuracy": "0.5"}),
        ("metrics", {"Accuracy": 0.5}),
        ("metrics", {"accuracy": None}),
        ("metrics", {"x" * 65: 1.0}),
        ("metrics", {f"m{i}": 1.0 for i in range(101)}),
        ("files/model.onnx/sha256", "AB" * 32),
        ("files/model.onnx/sha256", "ab" * 32 + "\n"),
        ("files/model.onnx/bytes", 0),
        ("files/model.onnx/bytes", -1),
        ("files/model.onnx/bytes", 1 << 31),
        ("files/model.onnx", ...),
        ("files/model.pkl", {"sha256": "ab" * 32, "bytes": 1}),
        ("files/..%2fmodel.onnx", {"sha256": "ab" * 32, "bytes": 1}),
        ("preprocessing/std", 0.0),
        ("model/classes", ["anger", "anger"]),
        ("model/trainable", "everything"),
        ("privacy/private", False),
        ("privacy/epsilon", None),
        ("privacy/epsilon", -1.0),
        ("privacy/delta", 1.0),
        ("privacy/unit", "none"),
        ("privacy/unit", "user"),
        ("privacy/statement", "NOT PRIVATE"),
        ("privacy/statement", "a\u202eb"),
    ],
)
def test_an_unknown_missing_or_wrong_value_is_refused(path: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^The manifest cannot be used: [^\n]+$"):
        parse_manifest(changed(path, value))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/model.onnx", "model.onnx\0", "MODEL.ONNX", ""])
def test_a_file_name_outside_the_fixed_set_is_refused(name: str) -> None:
    whole = json.loads(MANIFEST.content())
    whole["files"][name] = whole["files"].pop("model.onnx")
    with pytest.raises(IntegrityError):
        parse_manifest(encode(whole))


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(json.loads(MANIFEST.content())).encode(),
        json.dumps(json.loads(MANIFEST.content()), indent=1).encode(),
        MANIFEST.content().rstrip(b"\n"),
        MANIFEST.content() + b"\n",
        MANIFEST.content().replace(b'"round":7', b'"round":7,"round":7'),
        MANIFEST.content().replace(b'"round":7', b'"round":07'),
        MANIFEST.content().replace(b'"std":0.25', b'"std":2.5e-1'),
        MANIFEST.content().replace(b'"std":0.25', b'"std":NaN'),
        MANIFEST.content().replace(b'"epsilon":7.9', b'"epsilon":1e999'),
        MANIFEST.content().replace(b"demo", b"\\u0064emo"),
        b"",
        b"[]\n",
        b"null\n",
        b'{"a":' * 10_000,
    ],
)
def test_anything_but_the_canonical_form_is_refused(content: bytes) -> None:
    assert content != MANIFEST.content()
    with pytest.raises(IntegrityError):
        parse_manifest(content)


def test_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(IntegrityError, match="at most 1048576 bytes"):
        parse_manifest(b" " * ((1 << 20) + 1))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_never_enter(number: float) -> None:
    with pytest.raises(ValidationError):
        facts_of_round(1, metrics={"loss": number})
    with pytest.raises(ValidationError):
        PrivacyStatement.guaranteed(
            unit="record", epsilon=number, delta=1e-5, accountant="rdp", clipping_norm=1.0, noise_source="x"
        )
    facts = dict(facts_of_round(1, preprocessing=Preprocessing(mean=number)))
    with pytest.raises(IntegrityError):
        Manifest(**facts, **FIRST).content()


def test_the_first_version_and_no_other_has_no_previous_one() -> None:
    facts = dict(facts_of_round(1))
    Manifest(**facts, **FIRST)
    for sequence, previous in ((1, "ab" * 32), (2, None)):
        with pytest.raises(ValidationError, match="first version"):
            Manifest(**facts, schema_version=1, sequence=sequence, files=FILES, previous=previous)


def test_a_model_without_privacy_says_so_in_every_way() -> None:
    statement = PrivacyStatement.absent("local training")
    assert statement.private is False
    assert statement.unit == "none"
    assert statement.statement.startswith("NOT PRIVATE")
    assert (statement.epsilon, statement.delta, statement.stated_epsilon) == (None, None, "none")
    content = Manifest(**dict(facts_of_round(1, privacy=statement)), **FIRST).content()
    assert b'"private":false' in content


@pytest.mark.parametrize(
    "change",
    [
        {"private": True},
        {"unit": "record"},
        {"epsilon": 3.0},
        {"clipping_norm": 1.0},
        {"noise_source": "x"},
        {"non_private": ()},
        {"statement": "Differentially private."},
    ],
)
def test_a_model_without_privacy_cannot_look_private(change: dict[str, Any]) -> None:
    values = PrivacyStatement.absent("local training").model_dump()
    with pytest.raises(ValidationError):
        PrivacyStatement(**values | change)


@pytest.mark.parametrize("missing", ["neighbouring", "epsilon", "delta", "accountant", "clipping_norm", "noise_source"])
def test_a_private_model_states_everything(missing: str) -> None:
    with pytest.raises(ValidationError, match="a private model states"):
        PrivacyStatement(**PRIVATE.model_dump() | {missing: None})


def test_the_sentence_says_what_is_protected_and_never_less_than_was_spent() -> None:
    assert PRIVATE.statement == "Differentially private for one face on a device: epsilon is at most 7.90 at delta 1e-05."
    client = PrivacyStatement.guaranteed(
        unit="client", epsilon=7.9001, delta=1e-6, accountant="rdp", clipping_norm=1.0, noise_source="x"
    )
    assert "all faces of one device" in client.statement
    assert client.stated_epsilon == "7.91"
    assert client.stated_epsilon in client.statement


@given(st.floats(0, 1e300))
def test_a_stated_epsilon_is_never_below_the_real_one(epsilon: float) -> None:
    stated = float(PRIVATE.model_copy(update={"epsilon": epsilon}).stated_epsilon)
    assert epsilon <= stated <= max(epsilon + 0.0101, epsilon * (1 + 1e-12))


def test_a_manifest_is_frozen() -> None:
    with pytest.raises(ValidationError):
        MANIFEST.round = 3  # type: ignore[misc]


def test_a_manifest_without_a_setting_that_came_later_still_reads() -> None:
    content = changed("model/stem_stride", ...)
    assert parse_manifest(content).model == ModelConfig()


def test_a_cohort_may_be_empty_for_the_initial_model() -> None:
    assert Cohort(asked=0, accepted=0).accepted == 0
