"""What a device holds a server to when it promises client-level privacy; and what a hostile server tries in order to get more."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.config import ClientLevelRequest
from common.errors import IntegrityError
from common.messages import TrainRequest, encode_request
from common.privacy.accountant import Release
from common.privacy.client_level.accounting import DistributedRounds, calibrate_distributed, client_epsilon
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.ledger import Ledger, LedgerPlace
from common.secagg.wire import Terms
from common.sum_encoding import NoiseShares
from fl_client.client_spending import survey_promises
from tests.fl_client.test_secure_sum import LENGTH, WEIGHTS, Owner, request

MECHANISM = calibrate_distributed(DistributedMechanism(3, noisy_survivors(3), LENGTH, 1.0, 1.0), 8.0, 1e-5, 2)


def promising(run: str = "run-1", number: int = 1, **change: Any) -> TrainRequest:
    """A request with noise shares for two rounds of three devices."""
    wish = {"mode": "distributed", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0, "bits": 20, "rounds": 2}
    wish |= {"noise_multiplier": 1.01 * MECHANISM.noise_multiplier} | change
    return request().model_copy(update={"run": run, "round": number, "client_level": ClientLevelRequest.model_validate(wish)})


def bare(run: str = "run-1", number: int = 1) -> TrainRequest:
    return request().model_copy(update={"run": run, "round": number})


def asked(owner: Owner, wish: TrainRequest) -> str:
    """`trained`, or why not."""
    reply = json.loads(str(owner.ask(encode_request(wish, WEIGHTS))["reply"]["json"]))
    return str(reply["reason"] or reply["status"])


def debits(owner: Owner) -> int:
    return len(Ledger(owner.device.ledger).entries)


def test_a_promise_is_in_the_ledger_before_training_and_counts_once_for_its_run(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0, largest_client_epsilon=8.0)
    assert [asked(owner, promising(number=number)) for number in (1, 2)] == ["trained"] * 2
    found = survey_promises(Ledger(owner.device.ledger).entries, 8.0)
    (run,) = found.runs
    assert (run.name, run.promise.epsilon, run.promise.rounds, run.taken) == ("run-1", 8.0, 2, 2)
    assert (found.promised, found.left, found.holds) == (8.0, 0.0, True)


def test_after_the_promised_rounds_none_is_trained_not_even_a_repeated_one(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    assert [asked(owner, promising(number=number)) for number in (1, 1, 1, 2)] == ["trained"] * 2 + ["budget-spent"] * 2
    assert debits(owner) == 2


@pytest.mark.parametrize("change", [{"epsilon": 9.0}, {"delta": 1e-6}, {"rounds": 200}, {"mode": "central"}])
def test_a_promise_cannot_be_changed_in_the_middle_of_a_run(tmp_path: Path, change: dict[str, Any]) -> None:
    owner = Owner(tmp_path, 0)
    assert asked(owner, promising()) == "trained"
    assert asked(owner, promising(number=2, **change)) == "budget-spent"
    assert debits(owner) == 1


def test_a_promise_cannot_be_dropped_or_begun_in_the_middle_of_a_run(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    assert asked(owner, promising("with")) == "trained"
    assert asked(owner, bare("with", 2)) == "budget-spent"
    assert asked(owner, bare("without")) == "trained"
    assert asked(owner, promising("without", 2)) == "budget-spent"
    assert debits(owner) == 2


def test_runs_add_up_to_the_owners_ceiling_and_no_further(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0, largest_client_epsilon=15.0)
    assert asked(owner, promising("first")) == "trained"
    assert asked(owner, promising("second")) == "budget-spent"
    assert asked(owner, promising("first", 2)) == "trained"
    assert debits(owner) == 2


@pytest.mark.parametrize("suffix", ["evaluation", "histogram"])
def test_a_run_cannot_hide_its_rounds_behind_the_name_of_its_evaluations(tmp_path: Path, suffix: str) -> None:
    owner = Owner(tmp_path, 0)
    assert asked(owner, promising(f"run-1.{suffix}")) == "bad-request"
    assert debits(owner) == 0


@pytest.mark.parametrize("wish", [bare(), promising(mode="central")])
def test_an_owner_who_wants_noise_shares_gets_them_or_takes_no_part(tmp_path: Path, wish: TrainRequest) -> None:
    owner = Owner(tmp_path, 0, largest_client_epsilon=100.0)
    assert asked(owner, wish) == "policy"
    assert debits(owner) == 0


@pytest.mark.parametrize("ceiling", [None, 100.0])
def test_noise_shares_never_leave_in_the_clear_even_where_the_owner_allows_that_for_updates(
    tmp_path: Path, ceiling: float | None
) -> None:
    """Outside of a secure sum the device would send its update without any client-level noise, and call it promised."""
    owner = Owner(tmp_path, 0, require_secure_aggregation=False, largest_client_epsilon=ceiling)
    wish = promising()
    content = owner.ask(encode_request(wish.model_copy(update={"upload": request(secure=False).upload}), WEIGHTS))
    assert json.loads(str(content["reply"]["json"]))["reason"] == "bad-request"
    assert set(content) == {"reply"}
    assert debits(owner) == 0


@pytest.mark.parametrize("secure", [True, False])
def test_counts_leave_in_a_secure_sum_and_beside_no_client_level_promise(tmp_path: Path, secure: bool) -> None:
    owner = Owner(tmp_path, 0, require_secure_aggregation=False)
    wish = promising() if secure else bare().model_copy(update={"upload": request(secure=False).upload})
    assert asked(owner, wish.model_copy(update={"evaluation_noise": 8.0})) == "bad-request"
    assert debits(owner) == 0


@pytest.mark.parametrize("change", [{"noise_multiplier": 0.5 * MECHANISM.noise_multiplier}, {"bits": 8}])
def test_noise_below_the_promise_is_refused_before_a_key_is_shown_and_the_debit_stands(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    owners = [Owner(tmp_path, number, largest_client_epsilon=8.0) for number in range(3)]
    wish = promising(**change)
    replies = [json.loads(str(owner.ask(encode_request(wish, WEIGHTS))["reply"]["json"])) for owner in owners]
    cohort = tuple(sorted(bytes.fromhex(reply["identity"]) for reply in replies))
    assert wish.client_level is not None
    encoding = NoiseShares(LENGTH, wish.client_level)
    invited = Terms("run-1", 1, encoding.vector_length, wish.digest(WEIGHTS), cohort, encoding.width(len(cohort)))
    header, content = owners[0].step("advertise", invited.encode())
    assert (header.reason, content) == ("policy", b"")
    assert debits(owners[0]) == 1
    assert owners[0].step("advertise", invited.encode())[0].reason == "bad-request"


def test_a_debit_pays_for_one_sum_alone(tmp_path: Path) -> None:
    """Trained once and debited once, an update enters one sum: a second invitation, with whatever cohort, finds nothing."""
    owners = [Owner(tmp_path, number) for number in range(4)]
    replies = [json.loads(str(owner.ask(encode_request(bare(), WEIGHTS))["reply"]["json"])) for owner in owners]
    identities = sorted(bytes.fromhex(reply["identity"]) for reply in replies)
    digest = bare().digest(WEIGHTS)
    own = bytes.fromhex(replies[0]["identity"])
    first, second = (tuple(sorted({own, *some})) for some in (identities[:3], identities[1:]))
    assert owners[0].step("advertise", Terms("run-1", 1, LENGTH, digest, first).encode())[0].reason is None
    assert owners[0].step("advertise", Terms("run-1", 1, LENGTH, digest, second).encode())[0].reason == "bad-request"
    assert debits(owners[0]) == 1


def entries_of(folder: Path, *runs: tuple[str | None, str, dict[str, Any] | None]) -> list[Any]:
    for authority, run, promise in runs:
        with Ledger(LedgerPlace(folder / "ledger.jsonl", None, authority)).locked() as ledger:
            now = datetime(2026, 1, 1, tzinfo=UTC)
            ledger.debit(Release(2.0, 0.1, 1), run=run, round_number=1, now=now, client_level=promise)
    return Ledger(folder / "ledger.jsonl").entries


PROMISE = {"mode": "distributed", "epsilon": 4.0, "delta": 1e-5, "rounds": 3}


def test_two_servers_with_one_name_for_their_runs_count_twice(tmp_path: Path) -> None:
    found = survey_promises(entries_of(tmp_path, ("ab" * 32, "run", PROMISE), ("cd" * 32, "run", PROMISE)), None)
    assert (found.promised, len(found.runs)) == (8.0, 2)
    assert found.delta == pytest.approx(2e-5)


def test_an_evaluation_belongs_to_its_run(tmp_path: Path) -> None:
    found = survey_promises(
        entries_of(tmp_path, *((None, run, None) for run in ("run.histogram", "run.evaluation", "run"))), None
    )
    assert found.without == ("run",)


@pytest.mark.parametrize("bad", [{"mode": "distributed"}, PROMISE | {"epsilon": -1}, PROMISE | {"more": 1}])
def test_a_promise_that_makes_no_sense_stops_everything(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="makes no sense"):
        survey_promises(entries_of(tmp_path, (None, "run", bad)), None)


@pytest.mark.parametrize(("members", "length", "bits"), [(3, 100, (10, 16)), (20, 4096, (12, 20)), (100, 100, (8, 10))])
def test_rounds_on_different_grids_together_keep_the_promise(members: int, length: int, bits: tuple[int, int]) -> None:
    """A server may ask for other bits in each round, and a device looks at each by itself, as if all rounds were like it."""
    asked = (DistributedMechanism(members, noisy_survivors(members), length, 1.0, 1.0, one) for one in bits)
    mixed = [DistributedRounds.of(calibrate_distributed(one, 8.0, 1e-5, 10), 5) for one in asked]
    assert client_epsilon(mixed, 1e-5) <= 8.0
