import json

import pytest
import typer
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import simulation.plan
from common.config import TrainConfig
from common.errors import ConfigError, PrivacyError
from common.privacy.accountant import Release, calibrate_noise, spent_epsilon
from fl_client.train import make_plan
from fl_server.cohort import expected_participations
from simulation.plan import Campaign, Offer, costs_by_round, milestones, offer, offers
from simulation.plan_commands import plan

DELTA = 1e-5


def campaign(examples: int = 300, rounds: int = 20, **more: int) -> Campaign:
    return Campaign(examples, TrainConfig(batch_size=32), rounds, **more)


def test_rate_and_steps_are_those_that_a_device_plans() -> None:
    ours, theirs = campaign(300, 100), make_plan(TrainConfig(batch_size=32), 300, 1, 100)
    assert (ours.rate, ours.steps) == (theirs.sampling.rate, theirs.steps) == (0.125, 8)
    assert ours.counted == 256


def test_participations_are_those_that_a_server_announces() -> None:
    assert campaign(rounds=100).participations == 100
    assert campaign(rounds=100, clients=10).participations == 100
    assert campaign(rounds=100, clients=100, cohort=10).participations == expected_participations(100, 10, 100) == 16


def test_the_noise_is_what_a_device_with_an_empty_ledger_takes() -> None:
    """As `fl_client.device` calibrates: over all steps of all rounds that it expects to take part in."""
    one = campaign(rounds=100, clients=100, cohort=10)
    assert one.noise_for(8.0, DELTA, "rdp") == calibrate_noise([], 0.125, 8 * 16, 8.0, DELTA, "rdp")


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(20, 2000), st.integers(1, 60), st.floats(1.0, 8.0))
def test_the_planned_rounds_fit_the_budget_and_few_more_do(examples: int, rounds: int, epsilon: float) -> None:
    one = campaign(examples, rounds)
    sigma = one.noise_for(epsilon, DELTA, "rdp")
    fitting = one.rounds_that_fit(sigma, epsilon, DELTA, "rdp")
    assert rounds <= fitting <= 1.02 * rounds + 1
    assert one.cost(sigma, fitting, DELTA, "rdp") <= epsilon < one.cost(sigma, fitting + 1, DELTA, "rdp")


def test_noise_that_is_too_small_for_one_round_fits_none() -> None:
    assert campaign().rounds_that_fit(0.2, 1.0, DELTA, "rdp") == 0


def test_a_count_of_rounds_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.plan, "MOST_ROUNDS", 100)
    assert campaign().rounds_that_fit(500.0, 8.0, DELTA, "rdp") == 100


def test_what_the_rounds_cost_adds_up_and_the_first_costs_most() -> None:
    costs = costs_by_round(campaign(rounds=12), 2.0, DELTA, "rdp")
    assert [cost.rounds for cost in costs] == [1, 2, 5, 10, 12]
    assert costs[0].epsilon == costs[0].added == spent_epsilon([Release(2.0, 0.125, 8)], DELTA)
    assert costs[-1].epsilon == spent_epsilon([Release(2.0, 0.125, 96)], DELTA)
    assert [cost.added for cost in costs] == sorted((cost.added for cost in costs), reverse=True)


def test_milestones_end_with_the_last_round() -> None:
    assert milestones(1) == [1]
    assert milestones(10) == [1, 2, 5, 10]
    assert milestones(60) == [1, 2, 5, 10, 20, 50, 60]


@pytest.mark.slow
def test_offers_name_both_accountants_and_prv_needs_less_noise() -> None:
    found = offers(campaign(100, 2), DELTA, (2.0,))
    assert [(each.epsilon, each.accountant) for each in found] == [(2.0, "rdp"), (2.0, "prv")]
    rdp, prv = (each.noise_multiplier for each in found)
    assert rdp is not None
    assert prv is not None
    assert 0 < prv < rdp
    assert found[0].noise_on_mean == pytest.approx(rdp / 32)
    assert found[0].one_round is not None
    assert 0 < found[0].one_round < 2.0


def test_an_offer_that_no_noise_can_keep_is_empty() -> None:
    assert offer(campaign(20, 50_000), 0.01, DELTA, "rdp").noise_multiplier is None
    with pytest.raises(PrivacyError, match="fewer rounds"):
        campaign(20, 50_000).noise_for(0.01, DELTA, "rdp")


@pytest.mark.parametrize("broken", [ValueError, OverflowError, MemoryError, RuntimeError])
def test_where_an_accountants_arithmetic_ends_there_is_a_sentence_and_an_empty_offer(
    monkeypatch: pytest.MonkeyPatch, broken: type[Exception]
) -> None:
    def fails(*numbers: object) -> float:
        raise broken

    monkeypatch.setattr(simulation.plan, "spent_epsilon", fails)
    assert offer(campaign(), 8.0, 1e-300, "prv") == Offer(8.0, "prv", None)
    monkeypatch.setattr(simulation.plan, "calibrate_noise", fails)
    assert offer(campaign(), 8.0, 1e-300, "prv") == Offer(8.0, "prv", None)
    with pytest.raises(PrivacyError, match=r"PRV accountant cannot compute .* at delta 1e-300: .* or --accountant rdp"):
        campaign().noise_for(8.0, 1e-300, "prv")
    with pytest.raises(PrivacyError, match="RDP accountant cannot compute"):
        campaign().cost(1.0, 3, 1e-300, "rdp")


def test_the_prv_accountant_has_an_end_and_it_is_no_traceback() -> None:
    with pytest.raises(PrivacyError, match="PRV accountant cannot compute"):
        campaign().noise_for(8.0, 1e-300, "prv")


@pytest.mark.parametrize(
    "bad", [{"examples": 0}, {"examples": 10_000_001}, {"rounds": 0}, {"cohort": 3}, {"clients": 3, "cohort": 4}]
)
def test_an_impossible_campaign_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        campaign(**bad)


@pytest.fixture
def fl_sim(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(simulation.plan, "ACCOUNTANTS", ("rdp",))
    app = typer.Typer()
    app.command()(plan)
    return app


def test_the_command_answers_in_tables(fl_sim: typer.Typer) -> None:
    result = CliRunner().invoke(fl_sim, ["--examples", "300", "--rounds", "100"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    for part in (
        "counted as 256",
        "8 steps a round",
        "Noise multiplier 2.40",
        "What the rounds cost",
        "over 100 rounds",
    ):
        assert part in result.stdout


def test_the_command_answers_in_json(fl_sim: typer.Typer) -> None:
    words = "--examples 300 --rounds 100 --clients 100 --cohort 10 --epsilon 2 --noise 4 --json"
    answer = json.loads(CliRunner().invoke(fl_sim, words.split()).stdout)
    assert (answer["participations"], answer["noise_multiplier"], answer["epsilon"]) == (16, 4.0, 2.0)
    assert answer["rounds_that_fit"] >= 16
    assert answer["costs"][-1]["epsilon"] <= 2.0
    assert {each["epsilon"] for each in answer["offers"]} == {1.0, 2.0, 4.0, 8.0}


def test_the_command_warns_of_noise_that_breaks_the_budget_and_of_a_delta_too_large(fl_sim: typer.Typer) -> None:
    words = "--examples 300 --rounds 100 --epsilon 1 --noise 1 --delta 0.01"
    result = CliRunner().invoke(fl_sim, words.split(), env={"COLUMNS": "200"})
    assert "over the budget of 1" in result.stdout
    assert "0 rounds fit" in result.stdout
    assert "not below 1 in 300 faces" in result.output


def test_the_command_refuses_nonsense_with_one_sentence(fl_sim: typer.Typer) -> None:
    for words, part in (("--noise 0", "--noise"), ("--epsilon -1", "epsilon"), ("--cohort 4", "--clients")):
        error = CliRunner().invoke(fl_sim, ["--examples", "300", *words.split()]).exception
        assert isinstance(error, ConfigError)
        assert part in str(error)
