"""Client-level privacy of whole runs: what is asked, what noise is in the model, what it costs, and what survives a restart."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from common.arrays import flatten
from common.config import ClientLevelConfig, ClientLevelRequest, RunConfig, make_config
from common.errors import ConfigError, PrivacyError, RunError
from common.messages import TrainReply, decode_request, encode_reply, joining
from common.privacy.client_level.accounting import CentralRounds, DistributedRounds, calibrate_distributed, client_epsilon
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.secagg.wire import Terms
from common.sum_encoding import DecodedSum, NoiseShares, sum_encoding
from fl_client.secure_sum import Waiting
from fl_server.client_level import LARGEST_NOISE, MARGIN, SPARE, ClientLevel, Cost, grown
from fl_server.publisher import client_statement
from fl_server.rounds import Rounds
from fl_server.secure_round import SecureSum
from tests.fl_server.grids import ScriptedGrid
from tests.fl_server.test_secure_round import HEAD, Member, silent

LENGTH = 7 * 1281


def settings(client_level: dict[str, object], *, secure: bool = True, **server: object) -> RunConfig:
    return make_config(
        {
            "model": {"name": "mobilenet_v2_025", "stem_stride": 2, "trainable": "head"},
            "server": {"rounds": 1, "round_timeout": 5} | server,
            "upload": {"step_timeout": 5, "secure": secure},
            "client_level": client_level,
        }
    )


class Asked(Member):
    """A member whose encoding is the one that the request asks for."""

    def train(self, message: Message) -> Message:
        request, weights = decode_request(message.content)
        flat = flatten(self.update())
        if not request.upload.secure:
            reply = TrainReply(run=request.run, round=request.round, status="trained")
            return Message(encode_reply(reply, self.update(), request.upload), reply_to=message)
        encoding = sum_encoding(len(flat), request.upload, request.client_level)
        self.sums.keep(request.run, request.round, 0, Waiting(flat, request.digest(weights), encoding, self.key))
        return Message(encode_reply(joining(request, self.key, request.digest(weights))), reply_to=message)


def moved(folder: Path, config: RunConfig, values: list[float]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """By how much the whole head moved, and the run's records."""
    rounds = Rounds(config, "run-1", folder, poll=0.001)
    first = {name: rounds.open_checkpoint().weights[name].copy() for name in HEAD}
    state = rounds.execute(ScriptedGrid({number: Asked(value) for number, value in enumerate(values)}))
    return flatten({name: state.weights[name] - first[name] for name in HEAD}), state.history


@pytest.mark.parametrize("secure", [True, False])
def test_central_noise_has_the_deviation_that_the_accountant_was_told(tmp_path: Path, secure: bool) -> None:
    change, history = moved(tmp_path, settings({"mode": "central", "clip": 0.5}, secure=secure), [0.0] * 4)
    cost = history[1]["client_level"]
    assert (cost["cohort"], cost["clients"], cost["released"]) == (4, 4, True)
    assert change.std() == pytest.approx(cost["noise_multiplier"] * 0.5 / 4, rel=0.04)
    assert client_epsilon([CentralRounds(cost["noise_multiplier"], 1.0, 1, "known")], 1e-5) <= 8.0
    assert history[1]["client_epsilon"] <= 8.0


@pytest.mark.parametrize("secure", [True, False])
def test_no_device_moves_a_central_mean_by_more_than_the_clip(tmp_path: Path, secure: bool) -> None:
    clip, huge = 2.0, 1.0
    change, history = moved(tmp_path, settings({"mode": "central", "clip": clip}, secure=secure), [huge, 0.0, 0.0, 0.0])
    along = float(change @ np.ones(LENGTH)) / math.sqrt(LENGTH)
    noise = history[1]["client_level"]["noise_multiplier"] * clip / 4
    assert abs(along - clip / 4) < 5 * noise


def test_a_distributed_mean_is_the_mean_under_at_least_the_noise_that_was_asked_for(tmp_path: Path) -> None:
    clip = 4.0
    change, history = moved(tmp_path, settings({"mode": "distributed", "clip": clip}), [0.01] * 5)
    unit = history[1]["client_level"]["noise_multiplier"] * clip / 5
    assert change.mean() == pytest.approx(0.01, abs=6 * 1.2 * unit / math.sqrt(LENGTH))
    # All five are there, four would do: the noise is that of four devices, times sqrt(5 / 4).
    assert change.std() == pytest.approx(unit * math.sqrt(5 / 4), rel=0.05)


def test_adaptive_clipping_follows_the_norms_and_is_kept(tmp_path: Path) -> None:
    config = settings({"mode": "central", "clip": 0.1, "adaptive": True, "epsilon": 50.0}, rounds=3)
    _, history = moved(tmp_path, config, [0.01] * 40)
    clips = [record["client_level"]["next_clip"] for record in history[1:]]
    assert 0.1 < clips[0] < clips[1] < clips[2]
    assert history[3]["client_epsilon"] <= 50.0


@pytest.mark.parametrize("mode", ["central", "distributed"])
def test_a_run_uses_its_budget_up_and_never_more(tmp_path: Path, mode: str) -> None:
    _, history = moved(tmp_path, settings({"mode": mode, "epsilon": 3.0}, rounds=4), [0.0] * 4)
    spent = [record["client_epsilon"] for record in history[1:]]
    assert spent == sorted(spent)
    assert 2.85 < spent[-1] <= 3.0


def budget(mode: str = "central", rounds: int = 10, **config: object) -> ClientLevel:
    found = ClientLevel.resume(ClientLevelConfig.model_validate({"mode": mode} | config), LENGTH, rounds, [])
    assert found is not None
    return found


def play(found: ClientLevel, done: int, cohort: int, clients: int, released: bool = True) -> Cost:
    found.begin(done, cohort, clients)
    if released:
        found.release_central(found.central_sum())
    assert found.cost is not None
    return found.cost


@pytest.mark.parametrize("mode", ["central", "distributed"])
def test_no_promise_rests_on_a_cohort_being_secret(mode: str) -> None:
    """How many answered is published: with few who ever do, it tells whether one of them was asked."""
    found, whole = budget(mode, epsilon=4.0), budget(mode, epsilon=4.0)
    costs = [found.begin(0, 10, clients).noise_multiplier for clients in (1000, 12, 10)]
    assert costs == [whole.begin(0, 10, 10).noise_multiplier] * 3


@pytest.mark.parametrize("secure", [True, False])
def test_no_norm_without_noise_is_recorded_beside_a_promise(tmp_path: Path, secure: bool) -> None:
    change, history = moved(tmp_path, settings({"mode": "central", "clip": 0.5}, secure=secure), [0.001, 0.0, 0.002, 0.0])
    assert history[1]["update_norm"] == pytest.approx(float(np.linalg.norm(change)), rel=1e-3)


@pytest.mark.parametrize("least", [0, 1, 2, 3, 7, 8, 9, 30, 20_000])
def test_the_noise_that_it_finds_is_the_first_of_small_steps_that_lasts(least: int) -> None:
    start = 1.5

    def enough(z: float) -> bool:
        return z > start * MARGIN ** (least - 0.5)

    steps = range(int(math.log(LARGEST_NOISE / start) / math.log(MARGIN)) + 1)
    expected = next((start * MARGIN**step for step in steps if step >= least), None)
    assert grown(start, enough) == (expected if expected is None else pytest.approx(expected))
    assert grown(2 * LARGEST_NOISE, enough) == (2 * LARGEST_NOISE if least < 20_000 else None)


def test_a_budget_that_no_noise_can_save_is_one_sentence() -> None:
    found = budget(rounds=1, epsilon=0.2)
    play(found, 0, 10, 1000)
    with pytest.raises(PrivacyError, match="all but spent after 1 of 1"):
        found.begin(1, 10, 10)


def test_a_round_that_released_nothing_costs_nothing() -> None:
    found = budget()
    assert not play(found, 0, 10, 20, released=False)["released"]
    assert found.epsilon() == 0.0


def test_a_mean_is_released_once() -> None:
    found = budget()
    play(found, 0, 10, 20)
    with pytest.raises(RunError, match="once"):
        found.central_sum()


def test_a_resumed_budget_knows_what_was_spent() -> None:
    found = budget(adaptive=True, clip=0.3, epsilon=30.0)
    costs = [play(found, done, 100, 400, released=done != 2) for done in range(4)]
    again = ClientLevel.resume(found.config, LENGTH, 10, costs)
    assert again is not None
    assert again.epsilon() == pytest.approx(found.epsilon())
    assert (again.clip, again.noise_multiplier) == (found.clip, found.noise_multiplier)


def invited(members: int, length: int) -> Terms:
    return Terms("run-1", 1, length, bytes(32), tuple(sorted(bytes([n]) * 32 for n in range(members))))


def test_a_device_computes_for_itself_what_the_noise_it_is_asked_for_promises() -> None:
    wish = budget("distributed", epsilon=2.0, rounds=5).begin(0, 20, 20)
    upload = settings({}).upload
    honest = sum_encoding(LENGTH, upload, wish)
    assert honest.vector_length == 2**14
    honest.check(invited(20, honest.vector_length))
    honest.check(invited(12, honest.vector_length))
    weak = sum_encoding(LENGTH, upload, wish.model_copy(update={"noise_multiplier": wish.noise_multiplier * 0.8}))
    with pytest.raises(PrivacyError, match="not the 2 that it promises"):
        weak.check(invited(20, weak.vector_length))


WHOLE = 1_520_000
"""Values of an update of the whole network: here the number of devices changes the grid, and so the cost."""


def distributed(epsilon: float, rounds: int, bits: int, length: int = WHOLE, clip: float = 1.0) -> ClientLevel:
    config = ClientLevelConfig(mode="distributed", epsilon=epsilon, bits=bits, clip=clip)
    return ClientLevel(config, length, rounds, clip=clip)


def at_devices(wish: ClientLevelRequest, members: int, length: int = WHOLE) -> DistributedRounds:
    """What a device finds, by the code that it runs, once so many have trained."""
    encoding = NoiseShares(length, wish)
    terms = invited(members, encoding.vector_length)
    encoding.check(terms)
    return DistributedRounds.of(encoding.mechanism(terms), wish.rounds)


def refused(wish: ClientLevelRequest, members: int, length: int = WHOLE) -> bool:
    try:
        at_devices(wish, members, length)
    except PrivacyError:
        return True
    return False


def summed(members: int) -> SecureSum:
    return SecureSum(DecodedSum(np.zeros(1)), noisy_survivors(members), Counter(), members)


@given(
    st.sampled_from([0.5, 1.0, 2.0, 8.0]),
    st.sampled_from([1, 30, 100, 200]),
    st.sampled_from([10, 16, 18, 20, 24]),
    st.sampled_from([7_175, 200_000, WHOLE]),
    st.integers(3, 100),
)
def test_no_device_refuses_the_noise_whichever_two_thirds_of_a_cohort_have_trained(
    epsilon: float, rounds: int, bits: int, length: int, cohort: int
) -> None:
    found = distributed(epsilon, rounds, bits, length)
    try:
        wish = found.begin(0, cohort, cohort)
    except (PrivacyError, ConfigError):  # none is useful: nobody was asked
        return
    assert not [members for members in range(noisy_survivors(cohort), cohort + 1) if refused(wish, members, length)]


@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_where_dropouts_cost_nothing_the_noise_is_the_least_for_the_whole_cohort_and_all_counts_are_covered(
    epsilon: float,
) -> None:
    length, clip = 7_175, 0.1  # the published runs: see docs/results.md
    wish = distributed(epsilon, 30, 20, length, clip).begin(0, 100, 1000)
    least = calibrate_distributed(DistributedMechanism(100, 67, length, clip, 1.0, 20), epsilon, 1e-5, 30).noise_multiplier
    assert wish.noise_multiplier == MARGIN * least
    assert not [members for members in range(3, 101) if refused(wish, members, length)]


def test_most_of_a_cohort_may_drop_out_where_that_takes_little_more_noise() -> None:
    wish = distributed(2.0, 100, 20).begin(0, 20, 20)
    least = calibrate_distributed(DistributedMechanism(20, 14, WHOLE, 1.0, 1.0, 20), 2.0, 1e-5, 100).noise_multiplier
    accepted = [members for members in range(3, 21) if not refused(wish, members)]
    assert accepted == list(range(accepted[0], 21))
    assert 3 < accepted[0] < noisy_survivors(20)
    assert least < wish.noise_multiplier <= MARGIN**2 * SPARE * least


@pytest.mark.parametrize(("epsilon", "bits"), [(2.0, 20), (8.0, 16), (2.0, 18)])
@pytest.mark.parametrize("cohorts", [(20, 10), (3, 20), (20, 3), (20, 10, 100, 20)])
def test_cohorts_may_change_in_the_middle_of_a_run(epsilon: float, bits: int, cohorts: tuple[int, ...]) -> None:
    rounds = 20
    found, noise, members = distributed(epsilon, rounds, bits), 0.0, 0
    for done in range(rounds):
        cohort = cohorts[done * len(cohorts) // rounds]
        wish = found.begin(done, cohort, 100)
        members = cohort - done % (cohort - noisy_survivors(cohort) + 1)
        assert not refused(wish, members)
        assert wish.noise_multiplier >= noise
        noise = wish.noise_multiplier
        found.release(summed(members))
    assert found.epsilon() <= epsilon


@given(st.integers(3, 40), st.data())
def test_a_round_costs_what_the_devices_that_trained_make_of_it(cohort: int, data: st.DataObject) -> None:
    found, real = distributed(2.0, 5, 20), []
    for done in range(5):
        wish = found.begin(done, cohort, cohort)
        members = data.draw(st.integers(noisy_survivors(cohort), cohort))
        real.append(at_devices(wish.model_copy(update={"rounds": 1}), members))
        found.release(summed(members))
        assert found.epsilon() == pytest.approx(client_epsilon(real, 1e-5), rel=1e-12)
        assert found.cost is not None
        assert found.cost["members"] == members


def test_a_resumed_run_knows_with_how_many_a_sum_was_agreed_on_and_takes_the_dearest_where_no_record_says_so() -> None:
    found, costs, old = distributed(2.0, 30, 20), list[Cost](), list[Cost]()
    for done in range(29):
        found.begin(done, 20, 20)
        found.release(summed(14))
        assert found.cost is not None
        costs.append(found.cost)
        old.append(found.cost.copy())
        del old[-1]["members"]
    again, older = (ClientLevel.resume(found.config, WHOLE, 30, records) for records in (costs, old))
    assert again is not None
    assert older is not None
    assert again.epsilon() == found.epsilon()
    assert found.epsilon() <= older.epsilon() <= 2.0
    assert older.begin(29, 20, 20).noise_multiplier == pytest.approx(costs[-1]["noise_multiplier"], rel=0.03)


def test_where_no_useful_noise_is_enough_nobody_is_asked_but_a_run_that_has_begun_goes_on_with_its_whole_cohort() -> None:
    with pytest.raises(PrivacyError, match="takes more devices or more than 20 bits"):
        distributed(1.0, 100, 20).begin(0, 6, 6)
    begun = distributed(1.0, 100, 20)
    begun.begin(0, 20, 20)
    wish = begun.begin(1, 6, 6)
    assert [refused(wish, members) for members in (6, 5)] == [False, True]
    with pytest.raises(PrivacyError, match="with 3 devices"):
        begun.begin(2, 3, 3)


def test_devices_that_drop_out_before_the_sum_are_not_in_what_the_record_says_it_cost(tmp_path: Path) -> None:
    config = settings({"mode": "distributed"}, round_timeout=0.5)
    members = {number: Asked(0.0, {"train": silent} if number == 4 else {}) for number in range(5)}
    state = Rounds(config, "run-1", tmp_path, poll=0.001).execute(ScriptedGrid(members))
    cost = state.history[1]["client_level"]
    assert (cost["cohort"], cost["members"], cost["released"]) == (5, 4, True)


def test_distributed_noise_outside_of_a_secure_sum_is_refused() -> None:
    with pytest.raises(ConfigError, match="secure sum alone"):
        settings({"mode": "distributed"}, secure=False)


def test_the_statement_says_whom_it_protects_and_who_adds_the_noise() -> None:
    central = client_statement(ClientLevelConfig(mode="central"), True)
    distributed = client_statement(ClientLevelConfig(mode="distributed"), True)
    assert central is not None
    assert distributed is not None
    assert (central.unit, central.neighbouring, central.epsilon) == ("client", "zero-out-one", 8.0)
    assert "server's" in str(central.noise_source)
    assert "Skellam" in str(distributed.noise_source)
    assert client_statement(ClientLevelConfig(), True) is None


def test_a_request_carries_the_clip_as_it_stands() -> None:
    found = budget(adaptive=True, clip=0.3, epsilon=30.0)
    cost = play(found, 0, 100, 400)
    wish = found.begin(1, 100, 400)
    assert isinstance(wish, ClientLevelRequest)
    assert wish.clip == cost["next_clip"] != 0.3


def test_with_too_few_devices_for_a_moment_the_clip_stays_and_the_noise_is_whole() -> None:
    found = budget(adaptive=True, clip=0.3, epsilon=8.0)
    first = play(found, 0, 100, 100)
    assert first["next_clip"] != 0.3
    small = play(found, 1, 30, 30)
    assert small["next_clip"] == first["next_clip"]
    found.begin(2, 30, 30)
    assert found.central_sum().mechanism.noise_multiplier == small["noise_multiplier"]
    assert play(found, 2, 100, 100)["next_clip"] != small["next_clip"]


def test_too_few_devices_from_the_beginning_are_refused() -> None:
    with pytest.raises(ConfigError, match="a larger cohort"):
        budget(adaptive=True, clip=0.3, epsilon=8.0).begin(0, 20, 20)
