"""Every face is dealt once, nobody goes short, and each scheme skews what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.emotions import EMOTIONS_7
from common.errors import DataError
from models.faces.faceset import FaceSet, one_hot
from simulation.partition import PartitionConfig, partition, skew_table

SCHEMES = ("iid", "dirichlet", "one-class-poor", "quantity", "by-person")


def make_faces(count: int, people: int | None = None, seed: int = 0) -> FaceSet:
    rng = np.random.default_rng(seed)
    who = None if people is None else (np.arange(count) % people).astype(np.int32)
    images = np.zeros((count, 2, 2), np.uint8)
    return FaceSet(images, one_hot(rng.integers(0, 7, count), 7), EMOTIONS_7, who)


def deal(faces: FaceSet, scheme: str, clients: int, **settings: object) -> list[np.ndarray]:
    return partition(faces, PartitionConfig.model_validate({"scheme": scheme, "clients": clients} | settings))


@given(
    scheme=st.sampled_from(SCHEMES),
    clients=st.integers(1, 15),
    least=st.integers(1, 12),
    extra=st.integers(0, 400),
    alpha=st.sampled_from([1e-300, 1e-6, 0.01, 0.1, 1.0, 100.0, 1e6, 1e300]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_every_face_is_dealt_once_and_nobody_goes_short(
    scheme: str, clients: int, least: int, extra: int, alpha: float, seed: int
) -> None:
    faces = make_faces(clients * least + extra, people=clients)
    parts = deal(faces, scheme, clients, min_examples=least, alpha=alpha, seed=seed)
    assert len(parts) == clients
    assert min(map(len, parts)) >= least
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(faces)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_deal_depends_on_the_seed_alone(scheme: str) -> None:
    faces = make_faces(600, people=60)
    first, again, other = (deal(faces, scheme, 7, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_as_many_clients_as_faces_get_one_each(scheme: str) -> None:
    assert [len(part) for part in deal(make_faces(30, people=30), scheme, 30)] == [1] * 30


@pytest.mark.parametrize("scheme", SCHEMES)
def test_too_many_clients_are_one_clear_sentence(scheme: str) -> None:
    with pytest.raises(DataError, match=r"^30 faces cannot give 7 clients at least 5 each: ask for at most 6 clients.*\.$"):
        deal(make_faces(30, people=30), scheme, 7, min_examples=5)


def test_iid_sizes_differ_by_one_at_most() -> None:
    assert {len(part) for part in deal(make_faces(100), "iid", 7)} == {14, 15}


def skew(table: np.ndarray) -> float:
    """Mean over clients of half the L1 distance between a client's class mix and everybody's."""
    mixes = table / table.sum(1, keepdims=True)
    return float(np.abs(mixes - table.sum(0) / table.sum()).sum(1).mean() / 2)


def test_dirichlet_label_skew_falls_as_alpha_grows() -> None:
    faces = make_faces(7000)
    low, middle, high = (
        skew(skew_table(deal(faces, "dirichlet", 10, alpha=alpha, min_examples=5), faces)) for alpha in (0.05, 1, 1e6)
    )
    assert low > 0.6 > middle > 0.2 > 0.02 > high


def test_dirichlet_shares_have_the_variance_of_their_alpha() -> None:
    """The share of one of n clients is Beta(alpha, (n - 1) alpha): its variance is (n - 1) / (n^2 (n alpha + 1))."""
    faces, n, alpha = make_faces(7000), 5, 0.5
    tables = [skew_table(deal(faces, "dirichlet", n, alpha=alpha, seed=seed), faces) for seed in range(60)]
    shares = np.concatenate([(table / table.sum(0)).ravel() for table in tables])
    assert shares.var() == pytest.approx((n - 1) / (n**2 * (n * alpha + 1)), rel=0.12)


def test_quantity_skews_sizes_but_not_labels() -> None:
    faces = make_faces(7000)
    parts = deal(faces, "quantity", 5, alpha=0.5, min_examples=300)
    sizes = [len(part) for part in parts]
    assert max(sizes) > 3 * min(sizes)
    assert skew(skew_table(parts, faces)) < 0.1


def test_each_client_lacks_most_of_one_class_and_the_classes_take_turns() -> None:
    faces = make_faces(7000)
    mixes = skew_table(deal(faces, "one-class-poor", 14), faces)
    mixes = mixes / mixes.sum(1, keepdims=True)
    assert (mixes.min(1) < 0.04).all()
    assert (np.sort(mixes, axis=1)[:, 1] > 0.1).all()
    assert sorted(mixes.argmin(1).tolist()) == sorted([*range(7), *range(7)])


def test_by_person_never_shares_a_person_and_keeps_sizes_even() -> None:
    faces = make_faces(1000, people=50)
    parts = deal(faces, "by-person", 8)
    held = [set(faces.people[part].tolist()) for part in parts]
    assert sum(map(len, held)) == len(set.union(*held)) == 50
    assert max(map(len, parts)) - min(map(len, parts)) <= 20


def test_by_person_needs_to_know_the_people() -> None:
    with pytest.raises(DataError, match="not known whose they are"):
        deal(make_faces(100), "by-person", 4)


def test_by_person_needs_a_person_for_each_client() -> None:
    with pytest.raises(DataError, match=r"^3 people cannot be dealt to 4 clients: ask for at most 3 clients\.$"):
        deal(make_faces(100, people=3), "by-person", 4)


def test_by_person_refuses_a_minimum_that_people_do_not_allow() -> None:
    faces = make_faces(100, people=3)
    with pytest.raises(DataError, match="would hold 33 faces, fewer than 34"):
        deal(faces.take(np.arange(99)), "by-person", 2, min_examples=34)


def test_clients_that_drew_too_few_are_filled_up_and_no_one_else_is_touched() -> None:
    faces = make_faces(2000)
    bare, filled = (deal(faces, "dirichlet", 10, alpha=0.05, min_examples=least, seed=3) for least in (1, 20))
    rich = [client for client, part in enumerate(bare) if 20 <= len(part) < 150]
    assert rich
    assert any(len(part) < 20 for part in bare)
    assert all(np.array_equal(bare[client], filled[client]) for client in rich)


def test_the_skew_table_counts_each_client_and_class() -> None:
    faces = FaceSet(np.zeros((4, 2, 2), np.uint8), one_hot(np.array([0, 0, 2, 1]), 3), EMOTIONS_7[:3])
    table = skew_table([np.array([0, 1]), np.array([2, 3])], faces)
    assert table.dtype == np.int64
    assert table.tolist() == [[2, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"alpha": 0.0}, {"alpha": float("inf")}, {"min_examples": 0}, {"scheme": "x"}])
def test_a_setting_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PartitionConfig.model_validate({"scheme": "iid", "clients": 3} | wrong)
