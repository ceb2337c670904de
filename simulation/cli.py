"""The command line `fl-sim`: a researcher's whole federation on one machine."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from common.config import RunConfig, make_config, merge_settings, nest_settings, read_config
from common.console import command_line, err, out, run_command_line
from common.emotions import EMOTIONS_8
from common.errors import ConfigError, RunError

app = command_line(
    "Simulate federated training of a facial emotion model: many devices on one machine, with the code that real devices run."
)

Help = typer.Option
DataOption = partial(Help, rich_help_panel="Data")
PrivacyOption = partial(Help, rich_help_panel="Privacy")
ModelOption = partial(Help, rich_help_panel="Model")
RoundsOption = partial(Help, rich_help_panel="Rounds")
TrainOption = partial(Help, rich_help_panel="Local training")
RunOption = partial(Help, rich_help_panel="Run")
Scheme = Literal["iid", "dirichlet", "one-class-poor", "quantity", "by-person"]
Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam"]


D = RunConfig()
"""What the help texts quote."""


@app.callback()
def fl_sim() -> None:
    pass


@app.command()
def run(
    data: Annotated[Path | None, DataOption(help="fer2013.csv, or a folder of emotions; drawn faces without it.")] = None,
    labels: Annotated[
        Literal["fer2013", "ferplus"] | None,
        DataOption(help="Whose labels a CSV gets: FER2013's 7 classes or FER+'s 8 with soft votes."),
    ] = None,
    clients: Annotated[int | None, DataOption(help=f"Simulated devices (default {D.data.clients}).")] = None,
    scheme: Annotated[Scheme | None, DataOption(help=f"How devices differ (default {D.data.scheme}).")] = None,
    alpha: Annotated[
        float | None,
        DataOption(help=f"Dirichlet concentration; smaller is more skewed (default {D.data.alpha:g})."),
    ] = None,
    drawn: Annotated[int | None, DataOption(help=f"How many faces to draw without --data (default {D.data.drawn}).")] = None,
    epsilon: Annotated[
        float | None,
        PrivacyOption(
            help=f"Record-level budget that no device may exceed, over everything it releases (default {D.privacy.epsilon:g})."
        ),
    ] = None,
    delta: Annotated[
        float | None,
        PrivacyOption(help=f"Probability with which epsilon may fail (default {D.privacy.delta:g})."),
    ] = None,
    clip: Annotated[
        float | None,
        PrivacyOption(help=f"Clipping norm of one face's gradient (default {D.privacy.clipping_norm:g})."),
    ] = None,
    accountant: Annotated[
        Literal["rdp", "prv"] | None,
        PrivacyOption(help=f"How epsilon is composed (default {D.privacy.accountant})."),
    ] = None,
    dp_engine: Annotated[
        Literal["bookkeeping", "opacus"] | None,
        PrivacyOption(help=f"Two ways to the same noisy gradients (default {D.privacy.engine})."),
    ] = None,
    non_private: Annotated[
        bool, PrivacyOption("--non-private", help="No privacy at all; everything produced is marked so.")
    ] = False,
    model: Annotated[str | None, ModelOption(help=f"A variant of models.mobilenet (default {D.model.name}).")] = None,
    stem_stride: Annotated[
        int | None,
        ModelOption(help=f"1 or 2; 2 is faster and blurs small faces (default {D.model.stem_stride})."),
    ] = None,
    trainable: Annotated[
        Literal["full", "last-block", "head"] | None,
        ModelOption(help=f"What is trained and uploaded (default {D.model.trainable})."),
    ] = None,
    init: Annotated[Path | None, ModelOption(help="Start from a published model (registry or version folder).")] = None,
    rounds: Annotated[int | None, RoundsOption(help=f"Rounds of training (default {D.server.rounds}).")] = None,
    cohort: Annotated[int | None, RoundsOption(help="Devices asked per round (default: all).")] = None,
    strategy: Annotated[
        Strategy | None,
        RoundsOption(help=f"How the server uses the devices' mean (default {D.server.strategy})."),
    ] = None,
    server_lr: Annotated[float | None, RoundsOption(help="Of fedavgm (default 1) and fedadam (default 0.01).")] = None,
    mu: Annotated[float | None, RoundsOption(help="FedProx's pull to the global model.")] = None,
    batch_size: Annotated[int | None, TrainOption(help=f"Expected examples per step (default {D.train.batch_size}).")] = None,
    local_epochs: Annotated[
        float | None,
        TrainOption(help=f"Passes over a device's faces per round (default {D.train.local_epochs:g})."),
    ] = None,
    local_steps: Annotated[int | None, TrainOption(help="Steps per round instead of passes.")] = None,
    lr: Annotated[float | None, TrainOption(help=f"Local learning rate (default {D.train.learning_rate:g}).")] = None,
    momentum: Annotated[float | None, TrainOption(help=f"Of local SGD (default {D.train.momentum:g}).")] = None,
    seed: Annotated[
        int | None,
        RunOption(help=f"Of data, initial weights, cohorts and shuffling; never of noise (default {D.seed})."),
    ] = None,
    config: Annotated[Path | None, RunOption(help="A TOML file with any of these settings; options win over it.")] = None,
    folder: Annotated[Path | None, RunOption("--out", help="The run folder (default: runs/<time>).")] = None,
    resume: Annotated[Path | None, RunOption(help="Go on with the run in this folder, with its own settings.")] = None,
    backend: Annotated[Literal["in-process", "ray"], RunOption(help="What runs the devices.")] = "in-process",
    workers: Annotated[int | None, RunOption(help="Devices that train at once (default: one per core).")] = None,
) -> None:
    """Train with simulated devices; leaves a run folder with metrics, plots and the signed model.

    Private by default: every device clips, adds noise and keeps a ledger of what it spent. Without --data, faces are drawn.
    """
    flags = nest_settings(
        {
            "data.path": None if data is None else str(data.expanduser().resolve()),
            "data.labels": labels,
            "data.clients": clients,
            "data.scheme": scheme,
            "data.alpha": alpha,
            "data.drawn": drawn,
            "privacy.epsilon": epsilon,
            "privacy.delta": delta,
            "privacy.clipping_norm": clip,
            "privacy.accountant": accountant,
            "privacy.engine": dp_engine,
            "privacy.private": False if non_private else None,
            "model.name": model,
            "model.stem_stride": stem_stride,
            "model.trainable": trainable,
            "init": None if init is None else str(init.expanduser().resolve()),
            "server.rounds": rounds,
            "server.cohort": cohort,
            "server.strategy": strategy,
            "server.server_learning_rate": server_lr,
            "train.proximal_mu": mu,
            "train.batch_size": batch_size,
            "train.local_epochs": local_epochs,
            "train.local_steps": local_steps,
            "train.learning_rate": lr,
            "train.momentum": momentum,
            "seed": seed,
        }
    )
    if resume is not None and (flags or config is not None or folder is not None):
        raise ConfigError("--resume goes on with the run's own settings; give it alone, or start a new run without it.")
    if non_private and epsilon is not None:
        raise ConfigError("--non-private and --epsilon contradict each other; give one of them.")
    settings = None if resume else settle(merge_settings(read_config(config) if config else {}, flags))
    perform(settings, folder, resume, backend, workers)


def settle(values: dict[str, Any]) -> RunConfig:
    """The configuration of `values`, the classes following the labels."""
    chosen = make_config(values)
    if chosen.data.labels == "ferplus" and "classes" not in values.get("model", {}):
        values = merge_settings(values, {"model": {"classes": EMOTIONS_8}})
    return make_config(values)


def perform(
    settings: RunConfig | None,
    folder: Path | None,
    resume: Path | None,
    backend: Literal["in-process", "ray"],
    workers: int | None,
) -> Path:
    """Run `settings`, or go on with `resume`, with a display, and report; returns the run folder."""
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.panel import Panel

    from fl_server.checkpoint import Checkpoint
    from fl_server.rounds import CHECKPOINT, Observers
    from simulation.backend import MOST_WORKERS
    from simulation.population import Population
    from simulation.progress import Display
    from simulation.report import summary_table, write_report
    from simulation.run import REGISTRY, Engine, RunFolder, default_out, run_simulation

    cores = Engine().cores
    workers = cores if workers is None else workers
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {workers}.")
    if backend == "in-process" and workers > MOST_WORKERS:
        raise ConfigError(f"--workers can be at most {MOST_WORKERS} on this machine, not {workers}; it has {cores} cores.")
    if settings is not None:
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
            + (f"record-level epsilon {config.privacy.epsilon:g}" if config.privacy.private else "[bold red]NON-PRIVATE[/]")
        )
        return display.wrap(observers)

    if done >= config.server.rounds:
        out.print(f"All {done} rounds of {escape(str(home.path))} are done.")
    try:
        with display.live():
            population = run_simulation(home, Engine(backend, workers, cores), watch)
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


@app.command()
def demo(
    folder: Annotated[Path | None, Help("--out", help="The run folder (default: runs/demo-<time>).")] = None,
    workers: Annotated[int | None, Help(help="Devices that train at once (default: one per core).")] = None,
) -> None:
    """The whole way in about two minutes: private training on drawn faces, a signed model, a labelled video."""
    from simulation.demo import demo_config, film, public_base
    from simulation.run import REGISTRY, default_out, require_empty

    home = folder or default_out().with_name(f"demo-{default_out().name}")
    beside = home.with_name(f"{home.name}-base")
    for path in (home, beside):
        require_empty(path)
    out.print("A first model learns from public drawn faces ...")
    beside.mkdir(parents=True, exist_ok=True)
    perform(demo_config(public_base(beside).resolve()), home, None, "in-process", workers)
    labelled = film(home, home / REGISTRY)
    out.print(f"\nThe published model at work on a drawn scene: [bold]{escape(os.path.relpath(labelled))}[/]", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of finished runs.")],
    folder: Annotated[Path, Help("--out", help="Where the plots go.")] = Path("comparison"),
) -> None:
    """Put finished runs side by side: a table, and plots of accuracy and epsilon."""
    from simulation.compare import comparison_table, names_of, plot_comparison

    named = names_of(runs)
    out.print(comparison_table(named))
    for plot in plot_comparison(named, folder):
        out.print(f"Written: {escape(str(plot))}", soft_wrap=True)


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(help="Where the folders of emotions go; must not exist or be empty.")],
    count: Annotated[int, Help(min=7, help="How many faces.")] = 200,
    people: Annotated[int, Help(min=1, help="How many people they show.")] = 1,
    seed: Annotated[int, Help(min=0, help="Another seed draws other people.")] = 0,
) -> None:
    """Draw faces into FOLDER/<emotion>/*.png, the layout that a device's own faces have: to try things out without a camera."""
    from simulation.drawn_folder import draw_folder

    written = draw_folder(folder, count, people=people, seed=seed)
    out.print(f"{written} faces of {people} {'person' if people == 1 else 'people'} in {escape(str(folder))}.", soft_wrap=True)


def main() -> None:
    """Entry point of `fl-sim`."""
    run_command_line(app)
