"""The command `fl-sim plan`: which noise a budget asks for and what the rounds cost, before anyone trains."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from common.config import PrivacyConfig, RunConfig, make_config, nest_settings
from common.console import err, out, print_json
from common.errors import ConfigError
from common.privacy.release import Accountant

if TYPE_CHECKING:
    from simulation.plan import Campaign, Cost, Offer

Option = typer.Option

D = RunConfig()


def plan(
    examples: Annotated[int, Option(min=1, help="Faces on the device.", show_default=False)],
    epsilon: Annotated[float | None, Option(help=f"The device's record-level budget (default {D.privacy.epsilon:g}).")] = None,
    delta: Annotated[float | None, Option(help=f"Probability with which it may fail (default {D.privacy.delta:g}).")] = None,
    rounds: Annotated[int | None, Option(help=f"Rounds of the run (default {D.server.rounds}).")] = None,
    batch: Annotated[int | None, Option(help=f"Expected faces per step (default {D.train.batch_size}).")] = None,
    local_epochs: Annotated[
        float | None, Option(help=f"Passes over the faces per round (default {D.train.local_epochs:g}).")
    ] = None,
    clients: Annotated[int | None, Option(min=1, help="Devices in all; needed with --cohort.")] = None,
    cohort: Annotated[int | None, Option(min=1, help="Devices asked per round; without it, all in every round.")] = None,
    accountant: Annotated[Accountant | None, Option(help=f"How epsilon is composed (default {D.privacy.accountant}).")] = None,
    noise: Annotated[
        float | None, Option(help="A noise multiplier: how many rounds fit with it, instead of which noise the rounds need.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Say which noise a privacy budget asks for, what each round costs, and how many rounds fit.

    Record level: one face more or less on this device. Nothing is trained and no ledger is read; what a device has spent before
    comes on top.
    """
    from simulation.plan import Campaign, costs_by_round, offers

    chosen = make_config(
        nest_settings(
            {
                "privacy.epsilon": epsilon,
                "privacy.delta": delta,
                "privacy.accountant": accountant,
                "server.rounds": rounds,
                "train.batch_size": batch,
                "train.local_epochs": local_epochs,
            }
        )
    )
    if noise is not None and not 1e-2 <= noise <= 1e3:
        raise ConfigError(f"--noise is a noise multiplier from 0.01 to 1000, not {noise:g}.")
    campaign = Campaign(examples, chosen.train, chosen.server.rounds, clients, cohort)
    privacy = chosen.privacy
    sigma = noise or campaign.noise_for(privacy.epsilon, privacy.delta, privacy.accountant)
    fitting = campaign.rounds_that_fit(sigma, privacy.epsilon, privacy.delta, privacy.accountant)
    costs = costs_by_round(campaign, sigma, privacy.delta, privacy.accountant)
    if as_json:
        print_json(_as_json(campaign, privacy, sigma, fitting, costs), indent=None)
        return
    _explain(campaign, privacy, sigma, fitting, costs[-1])
    out.print(_cost_table(costs))
    with err.status("The PRV accountant takes some seconds ..."):
        table = _offer_table(offers(campaign, privacy.delta), campaign.participations)
    out.print(table)
    if privacy.delta * examples >= 1:
        err.print(f"delta {privacy.delta:g} is not below 1 in {examples} faces: it allows one of them to be given away whole.")


def _as_json(campaign: "Campaign", privacy: PrivacyConfig, sigma: float, fitting: int, costs: "list[Cost]") -> dict[str, Any]:
    from simulation.plan import offers

    return {
        "examples": campaign.examples,
        "examples_counted": campaign.counted,
        "sample_rate": campaign.rate,
        "steps_per_round": campaign.steps,
        "rounds": campaign.rounds,
        "participations": campaign.participations,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "accountant": privacy.accountant,
        "noise_multiplier": sigma,
        "rounds_that_fit": fitting,
        "costs": [asdict(cost) for cost in costs],
        "offers": [asdict(each) for each in offers(campaign, privacy.delta)],
    }


def _explain(campaign: "Campaign", privacy: PrivacyConfig, sigma: float, fitting: int, last: "Cost") -> None:
    counted = "" if campaign.counted == campaign.examples else f", counted as {campaign.counted} to hide the exact number"
    asked = "in all of them" if campaign.cohort is None else f"in up to {campaign.participations} of them, it expects"
    over = last.epsilon > privacy.epsilon
    steps = "step" if campaign.steps == 1 else "steps"
    out.print(
        f"[bold]{campaign.examples} faces[/]{counted}: {campaign.steps} {steps} a round, each face in a step with chance "
        f"{campaign.rate:.4g}.\n"
        f"[bold]{campaign.rounds} rounds[/], the device takes part {asked}.\n"
        f"[bold]Noise multiplier {sigma:.3f}[/]: record-level epsilon {last.epsilon:.3f} at delta {privacy.delta:g} after "
        f"{last.rounds} rounds ({privacy.accountant.upper()}), "
        + (f"[bold red]over the budget of {privacy.epsilon:g}[/].\n" if over else f"within the budget of {privacy.epsilon:g}.\n")
        + f"[bold]{fitting} rounds[/] fit into that budget with this noise."
    )


def _cost_table(costs: "list[Cost]") -> Table:
    table = Table(title="What the rounds cost", title_justify="left")
    for heading in ("rounds taken part in", "epsilon so far", "the last one added"):
        table.add_column(heading, justify="right")
    for cost in costs:
        table.add_row(str(cost.rounds), f"{cost.epsilon:.3f}", f"{cost.added:.4f}")
    return table


def _offer_table(found: "list[Offer]", participations: int) -> Table:
    table = Table(title=f"What a budget buys over {participations} rounds", title_justify="left")
    for heading in ("epsilon", "accountant", "noise multiplier", "noise on mean gradient", "one round costs"):
        table.add_column(heading, justify="right")
    for each in found:
        row = (each.noise_multiplier, each.noise_on_mean, each.one_round)
        table.add_row(f"{each.epsilon:g}", each.accountant, *("-" if value is None else f"{value:.3f}" for value in row))
    return table
