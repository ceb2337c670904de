"""The command line `fl-sim`: a researcher's whole federation on one machine."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from common.allocator import keep_freed_memory
from common.console import command_line, out, run_command_line
from simulation.draw_commands import deal, draw, scene
from simulation.perform import perform
from simulation.personalise_commands import personalise
from simulation.plan_commands import plan
from simulation.pretrain_commands import pretrain
from simulation.run_command import run

app = command_line(
    "Simulate federated training of a facial emotion model: many devices on one machine, with the code that real devices run."
)

Help = typer.Option


@app.callback()
def fl_sim() -> None:
    keep_freed_memory()


app.command()(run)


@app.command()
def demo(
    folder: Annotated[
        Path | None, Help("--out", help="The run folder (default: runs/demo, or runs/demo-<time> once that is taken).")
    ] = None,
    workers: Annotated[int | None, Help(help="Devices that train at once (default: one per core).")] = None,
) -> None:
    """The whole way in about two minutes: private training on drawn faces, a signed model, a labelled video."""
    from simulation.demo import beside, demo_config, demo_folder, earlier_base, film, public_base
    from simulation.run import REGISTRY, Engine, require_empty

    home = folder or demo_folder()
    place = beside(home)
    Engine.chosen("in-process", workers)
    require_empty(home)
    base = earlier_base(place)
    if base is None:
        out.print("A first model learns from public drawn faces ...")
        base = public_base(place)
    else:
        out.print(f"The first model is an earlier demo's, in {escape(os.path.relpath(place))} ...", soft_wrap=True)
    perform(demo_config(base.resolve()), home, None, "in-process", workers)
    labelled = film(home, home / REGISTRY)
    out.print(f"\nThe published model at work on a drawn scene: [bold]{escape(os.path.relpath(labelled))}[/]", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of finished runs.")],
    folder: Annotated[Path, Help("--out", help="Where the plots go.")] = Path("comparison"),
) -> None:
    """Put finished runs side by side: their figures, the settings in which they differ, and plots of accuracy and epsilon."""
    from simulation.compare import comparison_table, names_of, plot_comparison, settings_table

    named = names_of(runs)
    out.print(comparison_table(named), settings_table(named), sep="\n")
    for plot in plot_comparison(named, folder):
        out.print(f"Written: {escape(str(plot))}", soft_wrap=True)


for command in (draw, scene, deal, plan, pretrain, personalise):
    app.command()(command)


def main() -> None:
    """Entry point of `fl-sim`."""
    run_command_line(app)
