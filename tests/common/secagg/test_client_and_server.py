import secrets
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, IntegrityError, PrivacyError, ReplyError, RunError
from common.secagg import client as client_module
from common.secagg import server as server_module
from common.secagg.client import Client, Limits, Stage
from common.secagg.fields import RingVector
from common.secagg.ring import Ring
from common.secagg.server import Phase
from common.secagg.wire import MaskedInput, Unmasking, WireMessage
from tests.common.secagg.rehearsal import Rehearsal, small_ring

NEVER = 5
"""A device that answers in all five phases; 0 to 4 name the first phase in which it is silent."""


def run(rehearsal: Rehearsal, silent_from: list[int]) -> None:
    """Play the round; devices fall silent as told. Leaves the result in `rehearsal.result`."""

    def silent(phase: int) -> set[int]:
        return {member for member, first in enumerate(silent_from) if first <= phase}

    rehearsal.advertised(silent(0))
    rehearsal.shared(silent(1))
    rehearsal.masked(silent(2))
    rehearsal.confirmed(silent(3))
    rehearsal.result = rehearsal.unmasked(silent(4))  # type: ignore[attr-defined]


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohorts of a size that a test can afford, on a sparse graph."""
    monkeypatch.setattr(client_module, "plan", small_ring)
    monkeypatch.setattr(server_module, "plan", small_ring)


patterns = st.integers(3, 9).flatmap(
    lambda n: st.lists(st.sampled_from([0, 1, 2, 3, 4, NEVER, NEVER, NEVER]), min_size=n, max_size=n)
)


@settings(max_examples=20, deadline=None)
@given(patterns, st.integers(0, 2**16))
def test_the_sum_is_exact_over_the_survivors_or_the_round_fails_with_nothing_revealed(silent_from: list[int], seed: int) -> None:
    members = len(silent_from)
    rehearsal, quorum = Rehearsal(members, seed=seed), 2 * members // 3 + 1
    if sum(first >= NEVER for first in silent_from) >= quorum:
        run(rehearsal, silent_from)
        survivors = tuple(member for member, first in enumerate(silent_from) if first > 2)
        assert rehearsal.result.survivors == survivors
        assert (rehearsal.result.total == rehearsal.sum_of(survivors)).all()
        return
    with pytest.raises(RunError, match="secure sum has failed"):
        run(rehearsal, silent_from)
    assert rehearsal.server.phase is Phase.OVER
    held = rehearsal.server._collected() if hasattr(rehearsal.server, "_survivors") else ()
    assert all(len(shares) < quorum for secrets_ in held for shares in secrets_.values()), "no secret can be put together"
    sums = [rehearsal.vectors[m] for m in range(members)] + [rehearsal.sum_of(rehearsal.inputs)]
    seen = [message.vector.values for message in rehearsal.inputs.values()] + [rehearsal.server._total]
    assert not any(np.mean(a == b) > 0.2 for a in sums for b in seen if rehearsal.inputs)


@pytest.mark.parametrize("phase", range(5))
def test_a_third_may_drop_out_in_any_one_phase(phase: int) -> None:
    rehearsal = Rehearsal(9, seed=phase)
    run(rehearsal, [phase if member in (0, 4) else NEVER for member in range(9)])
    gone = {0, 4} if phase <= 2 else set()
    assert (rehearsal.result.total == rehearsal.sum_of(set(range(9)) - gone)).all()


@pytest.mark.usefixtures("sparse")
@settings(max_examples=4, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, *[NEVER] * 12]), min_size=14, max_size=14), st.integers(0, 2**16))
def test_on_a_sparse_graph_the_sum_is_exact_or_the_round_fails(silent_from: list[int], seed: int) -> None:
    rehearsal = Rehearsal(14, seed=seed)
    try:
        run(rehearsal, silent_from)
    except (RunError, PrivacyError):
        return
    survivors = tuple(member for member, first in enumerate(silent_from) if first > 2)
    assert rehearsal.result.survivors == survivors
    assert (rehearsal.result.total == rehearsal.sum_of(survivors)).all()


@pytest.mark.usefixtures("sparse")
def test_a_sparse_round_with_dropouts_in_three_phases_gives_the_sum() -> None:
    rehearsal = Rehearsal(20, seed=1)
    run(rehearsal, [{3: 1, 11: 2, 17: 4}.get(member, NEVER) for member in range(20)])
    assert (rehearsal.result.total == rehearsal.sum_of(set(range(20)) - {3, 11})).all()
    assert all(len(message.sealed) == 6 for message in rehearsal.shares.values())


@pytest.mark.slow
def test_a_cohort_of_257_on_its_real_graph_gives_the_sum() -> None:
    rehearsal = Rehearsal(257, seed=1)
    silent = np.random.default_rng(1).choice([1, 2, 3, NEVER], 257, p=[0.05, 0.1, 0.05, 0.8])
    run(rehearsal, silent.tolist())
    assert (rehearsal.result.total == rehearsal.sum_of(rehearsal.result.survivors)).all()


def test_a_real_update_comes_out_to_within_the_rounding() -> None:
    rehearsal, ring = Rehearsal(8, length=1000), Ring(8, 0.5)
    updates = np.random.default_rng(0).normal(0, 0.2, (8, 1000)).astype(np.float32)
    rehearsal.vectors = {m: ring.encode(update, secrets.token_bytes) for m, update in enumerate(updates)}
    run(rehearsal, [NEVER, 2, NEVER, 2, *[NEVER] * 4])
    exact = np.clip(updates[[0, 2, 4, 5, 6, 7]].astype(np.float64), -0.5, 0.5).sum(axis=0)
    assert np.abs(ring.decode(rehearsal.result.total) - exact).max() < 6 * ring.step


@pytest.mark.parametrize("width", [8, 21, 26, 31])
def test_a_narrow_ring_adds_up_with_dropouts_and_sends_no_more_than_its_bits(width: int) -> None:
    rehearsal = Rehearsal(8, length=1000, seed=width, width=width)
    run(rehearsal, [NEVER, 2, NEVER, 3, *[NEVER] * 4])
    left = [member for member in range(8) if member != 1]
    total = sum(rehearsal.vectors[member].astype(np.uint64) for member in left) % 2**width
    assert (rehearsal.result.total == total).all()
    assert len(rehearsal.inputs[0].encode()) == 72 + 5 + 1000 * width // 8
    assert max(message.vector.values.max() for message in rehearsal.inputs.values()) >= 2 ** (width - 1), "masks fill the width"


def test_a_vector_of_another_width_is_refused_by_device_and_server() -> None:
    rehearsal = Rehearsal(5, length=4, width=20)
    rehearsal.advertised()
    rehearsal.shared()
    client, delivery = rehearsal.clients[0], rehearsal.deliveries[0]
    wide = client.mask(delivery, rehearsal.vectors[0])
    with pytest.raises(ReplyError, match="4 values of 21 bits instead of 4 of 20"):
        rehearsal.server.add_masked(MaskedInput(0, wide.signature, RingVector(wide.vector.values, 21)))
    with pytest.raises(IntegrityError, match="integers of 20 bits"):
        rehearsal.clients[1].mask(rehearsal.deliveries[1], np.full(4, 2**20, dtype=np.uint32))


def test_a_masked_vector_is_uniform_and_two_rounds_mask_the_same_vector_differently() -> None:
    one, two = Rehearsal(5, length=40_000, seed=1), Rehearsal(5, length=40_000, seed=2)
    for rehearsal in (one, two):
        rehearsal.vectors = {member: np.zeros(40_000, dtype=np.uint32) for member in range(5)}
        rehearsal.until_masked()
        counts = np.bincount(rehearsal.inputs[0].vector.values >> np.uint32(24), minlength=256)
        assert ((counts - 40_000 / 256) ** 2 / (40_000 / 256)).sum() < 400, "chi-square, 255 degrees of freedom, p about 1e-8"
    assert (one.inputs[0].vector.values == two.inputs[0].vector.values).mean() < 0.01


def test_the_vector_that_is_handed_in_is_not_changed() -> None:
    rehearsal = Rehearsal(4)
    before = rehearsal.vectors[0].copy()
    rehearsal.until_masked()
    assert (rehearsal.vectors[0] == before).all()


STEPS: list[tuple[Stage, Callable[[Client, Rehearsal], WireMessage]]] = [
    (Stage.ADVERTISE, lambda client, _: client.advertise()),
    (Stage.SHARE, lambda client, r: client.share(r.directory)),
    (Stage.MASK, lambda client, r: client.mask(r.deliveries[client.member], r.vectors[client.member])),
    (Stage.CONFIRM, lambda client, r: client.confirm(r.lists[client.member])),
    (Stage.UNMASK, lambda client, r: client.unmask(r.quorum)),
]


@pytest.mark.parametrize("done", range(6))
@pytest.mark.parametrize("asked", range(5))
def test_a_device_takes_each_step_once_and_in_order_and_any_other_request_ends_its_round(done: int, asked: int) -> None:
    finished = Rehearsal(3)
    run(finished, [NEVER] * 3)
    fresh = Rehearsal(3)
    client = fresh.clients[0]
    for _, step in STEPS[:done]:
        step(client, finished)
    if asked == done:
        STEPS[asked][1](client, finished)
        return
    with pytest.raises(IntegrityError, match="out of turn"):
        STEPS[asked][1](client, finished)
    for _, step in STEPS:
        with pytest.raises(IntegrityError, match="out of turn"):
            step(client, finished)
    assert client.stage is Stage.OVER


def test_a_refusal_ends_the_round_for_the_device() -> None:
    rehearsal = Rehearsal(4)
    rehearsal.advertised()
    rehearsal.shared()
    with pytest.raises(IntegrityError, match="flat uint32 vectors of 16"):
        rehearsal.clients[0].mask(rehearsal.deliveries[0], np.zeros(15, dtype=np.uint32))
    with pytest.raises(IntegrityError, match="out of turn"):
        rehearsal.clients[0].mask(rehearsal.deliveries[0], rehearsal.vectors[0])


def test_the_server_refuses_a_message_twice_or_out_of_turn_or_from_a_stranger_and_goes_on() -> None:
    rehearsal = Rehearsal(7)
    rehearsal.advertised({4})
    for message in (rehearsal.advertisements[0], rehearsal.clients[4].advertise()):
        with pytest.raises(ReplyError, match="while the server takes shares"):
            rehearsal.server.add_advertisement(message)
    rehearsal.shared()
    rehearsal.masked({3})
    with pytest.raises(ReplyError, match="while the server takes confirmations"):
        rehearsal.server.add_masked(rehearsal.inputs[0])
    late = rehearsal.clients[3].mask(rehearsal.deliveries[3], rehearsal.vectors[3])
    with pytest.raises(ReplyError):
        rehearsal.server.add_masked(late)
    confirmation = rehearsal.clients[0].confirm(rehearsal.lists[0])
    rehearsal.server.add_confirmation(confirmation)
    with pytest.raises(ReplyError, match="twice"):
        rehearsal.server.add_confirmation(confirmation)
    with pytest.raises(RunError, match="has failed"):
        rehearsal.server.close_confirming()


def test_the_server_refuses_forged_and_misshapen_messages_and_finishes_with_the_rest() -> None:
    rehearsal = Rehearsal(7, seed=5)
    rehearsal.advertised()
    rehearsal.shared()
    messages = {m: c.mask(rehearsal.deliveries[m], rehearsal.vectors[m]) for m, c in rehearsal.clients.items()}
    stolen = type(messages[0])(0, messages[1].signature, messages[0].vector)
    short = type(messages[0])(0, messages[0].signature, RingVector(messages[0].vector.values[:-1]))
    for wrong, sentence in ((stolen, "signature"), (short, "15 values of 32 bits instead of 16 of 32")):
        with pytest.raises(ReplyError, match=sentence):
            rehearsal.server.add_masked(wrong)
    for member in range(1, 7):
        rehearsal.server.add_masked(messages[member])
    rehearsal.lists = rehearsal.server.close_masking()
    rehearsal.confirmed()
    odd = rehearsal.clients[1].unmask(rehearsal.quorum)
    swapped = Unmasking(1, odd.keys, odd.seeds)
    with pytest.raises(ReplyError, match="nobody asked for"):
        rehearsal.server.add_unmasking(swapped)
    rehearsal.server.add_unmasking(odd)
    for member in range(2, 7):
        rehearsal.server.add_unmasking(rehearsal.clients[member].unmask(rehearsal.quorum))
    assert rehearsal.server.can_finish()
    assert (rehearsal.server.finish().total == rehearsal.sum_of(range(1, 7))).all()
    with pytest.raises(RunError, match="nothing more"):
        rehearsal.server.finish()


def test_the_server_keeps_one_vector_however_many_arrive() -> None:
    rehearsal = Rehearsal(6, length=1000)
    rehearsal.advertised()
    rehearsal.shared()
    for member, delivery in rehearsal.deliveries.items():
        rehearsal.server.add_masked(rehearsal.clients[member].mask(delivery, rehearsal.vectors[member]))
        held = [value for value in vars(rehearsal.server).values() if isinstance(value, np.ndarray)]
        assert sum(array.nbytes for array in held) == 4000
    assert all(type(content) is bytes and len(content) == 64 for content in rehearsal.server._inputs.values())


@pytest.mark.parametrize("smallest", [0, 1, 2])
def test_an_owner_cannot_ask_for_less_than_three(smallest: int) -> None:
    with pytest.raises(ConfigError, match="at least 3"):
        Limits(smallest)
