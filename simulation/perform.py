"""A run with a display, its report and what to do next: what `fl-sim run`, `--resume` and `demo` have in common."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from common.config import RunConfig
from common.console import err, out
from common.errors import RunError
from common.sigterm import sigterm_stops

if TYPE_CHECKING:
    from simulation.backend import BackendName


@sigterm_stops()
def perform(
    settings: RunConfig | None,
    folder: Path | None,
    resume: Path | None,
    backend: "BackendName",
    workers: int | None,
) -> Path:
    """Run `settings`, or go on with `resume`, with a display, and report; returns the run folder. SIGTERM stops it, too."""
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.panel import Panel

    from fl_server.checkpoint import Checkpoint
    from fl_server.rounds import CHECKPOINT, Observers
    from simulation.choices import promises
    from simulation.population import Population
    from simulation.progress import Display
    from simulation.report import summary_table, write_report
    from simulation.run import REGISTRY, Engine, RunFolder, default_out, run_simulation

    engine = Engine.chosen(backend, workers)
    if settings is not None:
        engine.check(settings)
        home = RunFolder.create(folder or default_out(), settings, datetime.now(UTC))
    else:
        home = RunFolder(resume or Path())
    config = home.config
    checkpoint = home.path / CHECKPOINT
    done = Checkpoint.load(checkpoint).round if resume and checkpoint.exists() else 0
    display = Display(out, config, done)

    def watch(population: Population, observers: Observers) -> Observers:
        for note in population.notes:
            out.print(f"[dim]{escape(note)}[/]")
        sizes = [len(rows) for rows in population.training]
        out.print(
            f"[bold]{home.name}[/]: {config.data.clients} devices with {min(sizes)} to {max(sizes)} faces each, "
            f"{config.model.name}, {config.model.trainable} trained, "
            + (" and ".join(promises(config)) or "[bold red]NON-PRIVATE[/]")
        )
        return display.wrap(observers)

    if done >= config.server.rounds:
        out.print(f"All {done} rounds of {escape(str(home.path))} are done.")
    try:
        with display.live():
            population = run_simulation(home, engine, watch)
    except KeyboardInterrupt:
        where = escape(os.path.relpath(home.path))
        err.print(f"Stopped; the finished rounds are kept. Go on with: fl-sim run --resume {where}", soft_wrap=True)
        raise typer.Exit(130) from None
    summary = write_report(home, population)
    if config.server.rounds and not summary["accepted_rounds"]:
        raise RunError(
            f"No round was accepted, so the model is still the first one; {home.path}/metrics.jsonl says what was left out."
        )
    where = os.path.relpath(home.path)
    out.print(
        summary_table(summary),
        Panel(
            Group(
                f"model     {where}/{REGISTRY}",
                f"plots     {where}/plots/accuracy.png, epsilon.png, devices.png, skew.png",
                f"metrics   {where}/metrics.jsonl",
                "",
                f"[bold]fl-client webcam --registry {where}/{REGISTRY}[/]   see it on a camera",
                f"[bold]fl-server models show {where}/{REGISTRY}[/]   what it promises",
                f"[bold]fl-sim compare {where} RUN...[/]   beside other runs",
            ),
            title="Next",
            title_align="left",
            expand=False,
        ),
    )
    return home.path
