"""`fl-sim personalise RUN`: per-device accuracy before and after each device has its own head. `simulation.cli` mounts it."""

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from common.console import err, out, print_json
from common.errors import ConfigError
from fl_client.personal_settings import PersonalSettings

D = PersonalSettings()
Option = typer.Option


def personalise(
    run: Annotated[Path, typer.Argument(help="Run folder of a run that has a model.")],
    pull: Annotated[float, Option(help="How strongly a head is held near the model's own; less for many faces.")] = D.pull,
    steps: Annotated[int, Option(help="Of L-BFGS over all of a device's training faces.")] = D.steps,
    as_json: Annotated[bool, Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Give each device of a run a head of its own, and compare accuracies on the faces that it kept aside.

    Beside it stands what a shift of class priors alone would do. Leaves personal.json, personal.csv and a plot in the folder.
    """
    try:
        settings = PersonalSettings(pull=pull, steps=steps)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]} is wrong: {first['msg']}.") from error
    from simulation.personalise import CSV, JSON, PLOT, outcome_table, personalise_run, write_outcome
    from simulation.run import RunFolder

    folder = RunFolder(run)
    columns = (TextColumn("Devices"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=folder.config.data.clients)
        outcome = personalise_run(folder, settings, lambda: bar.advance(task))
    values = write_outcome(run, outcome, settings)
    if as_json:
        print_json(values, indent=None)
        return
    if outcome.kept:
        out.print("The heads are those that the devices kept in this run (--personal-head).")
    out.print(outcome_table(outcome))
    faces = values["held_out_faces"]
    out.print(f"{outcome.worse_off} of {len(outcome.devices)} devices are worse off; {faces:,} held-out faces in all.")
    for name in (JSON, CSV, PLOT):
        out.print(f"Written: {escape(os.path.relpath(run / name))}", soft_wrap=True)
