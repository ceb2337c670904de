"""The command line `fl-sim`: a researcher's whole federation on one machine."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from common.config import RunConfig, make_config, read_config
from common.console import command_line, out, run_command_line
from common.emotions import EMOTIONS_8
from common.errors import ConfigError, RunError

app = command_line(
    "Simulate federated training of a facial emotion model: many devices on one machine, with the code that real devices run."
)

Help = typer.Option
Scheme = Literal["iid", "dirichlet", "one-class-poor", "quantity", "by-person"]
Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam"]


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            *groups, last = name.split(".")
            target = nested
            for group in groups:
                target = target.setdefault(group, {})
            target[last] = value
    return nested


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        known = merged.get(name)
        if isinstance(value, dict) and known is not None and not isinstance(known, dict):
            raise ConfigError(f"{name} is wrong: it is a group of settings, not {known!r}.")
        merged[name] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


@app.callback()
def fl_sim() -> None:
    pass


@app.command()
def run(
    data: Annotated[
        Path | None, Help(help="fer2013.csv, or a folder of emotions; drawn faces without it.", rich_help_panel="Data")
    ] = None,
    labels: Annotated[
        Literal["fer2013", "ferplus"] | None,
        Help(help="Whose labels a CSV gets: FER2013's 7 classes or FER+'s 8 with soft votes.", rich_help_panel="Data"),
    ] = None,
    clients: Annotated[int | None, Help(help="Simulated devices [20].", rich_help_panel="Data")] = None,
    scheme: Annotated[Scheme | None, Help(help="How devices differ [dirichlet].", rich_help_panel="Data")] = None,
    alpha: Annotated[
        float | None, Help(help="Dirichlet concentration; smaller is more skewed [0.3].", rich_help_panel="Data")
    ] = None,
    drawn: Annotated[int | None, Help(help="How many faces to draw without --data [6000].", rich_help_panel="Data")] = None,
    epsilon: Annotated[
        float | None,
        Help(help="Record-level budget that no device may exceed, over everything it releases [8].", rich_help_panel="Privacy"),
    ] = None,
    delta: Annotated[
        float | None, Help(help="Probability with which epsilon may fail [1e-5].", rich_help_panel="Privacy")
    ] = None,
    clip: Annotated[float | None, Help(help="Clipping norm of one face's gradient [1].", rich_help_panel="Privacy")] = None,
    accountant: Annotated[Literal["rdp", "prv"] | None, Help(help="[rdp]", rich_help_panel="Privacy")] = None,
    dp_engine: Annotated[
        Literal["bookkeeping", "opacus"] | None,
        Help(help="Two ways to the same noisy gradients [bookkeeping].", rich_help_panel="Privacy"),
    ] = None,
    non_private: Annotated[
        bool, Help("--non-private", help="No privacy at all; everything produced is marked so.", rich_help_panel="Privacy")
    ] = False,
    model: Annotated[
        str | None, Help(help="A variant of models.mobilenet [mobilenet_v3_small].", rich_help_panel="Model")
    ] = None,
    stem_stride: Annotated[
        int | None, Help(help="1 or 2; 2 is faster and blurs small faces [1].", rich_help_panel="Model")
    ] = None,
    trainable: Annotated[
        Literal["full", "last-block", "head"] | None, Help(help="What is trained and uploaded [full].", rich_help_panel="Model")
    ] = None,
    init: Annotated[
        Path | None, Help(help="Start from a published model (registry or version folder).", rich_help_panel="Model")
    ] = None,
    rounds: Annotated[int | None, Help(help="[20]", rich_help_panel="Rounds")] = None,
    cohort: Annotated[int | None, Help(help="Devices asked per round [all].", rich_help_panel="Rounds")] = None,
    strategy: Annotated[Strategy | None, Help(help="[fedavg]", rich_help_panel="Rounds")] = None,
    server_lr: Annotated[float | None, Help(help="Of fedavgm [1] and fedadam [0.01].", rich_help_panel="Rounds")] = None,
    mu: Annotated[float | None, Help(help="FedProx's pull to the global model.", rich_help_panel="Rounds")] = None,
    batch_size: Annotated[int | None, Help(help="Expected examples per step [32].", rich_help_panel="Local training")] = None,
    local_epochs: Annotated[
        float | None, Help(help="Passes over a device's faces per round [1].", rich_help_panel="Local training")
    ] = None,
    local_steps: Annotated[int | None, Help(help="Steps per round instead of passes.", rich_help_panel="Local training")] = None,
    lr: Annotated[float | None, Help(help="Local learning rate [0.05].", rich_help_panel="Local training")] = None,
    momentum: Annotated[float | None, Help(help="Of local SGD [0.9].", rich_help_panel="Local training")] = None,
    seed: Annotated[
        int | None, Help(help="Of data, initial weights, cohorts and shuffling; never of noise [0].", rich_help_panel="Run")
    ] = None,
    config: Annotated[
        Path | None, Help(help="A TOML file with any of these settings; options win over it.", rich_help_panel="Run")
    ] = None,
    folder: Annotated[Path | None, Help("--out", help="The run folder [runs/<time>].", rich_help_panel="Run")] = None,
    resume: Annotated[
        Path | None, Help(help="Go on with the run in this folder, with its own settings.", rich_help_panel="Run")
    ] = None,
    backend: Annotated[Literal["in-process", "ray"], Help(help="What runs the devices.", rich_help_panel="Run")] = "in-process",
    workers: Annotated[int | None, Help(help="Devices that train at once [one per core].", rich_help_panel="Run")] = None,
) -> None:
    """Train with simulated devices; leaves a run folder with metrics, plots and the signed model.

    Private by default: every device clips, adds noise and keeps a ledger of what it spent. Without --data, faces are drawn.
    """
    flags = _nested(
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
    settings = None if resume else settle(_merge(read_config(config) if config else {}, flags))
    perform(settings, folder, resume, backend, workers)


def settle(values: dict[str, Any]) -> RunConfig:
    """The configuration of `values`, the classes following the labels."""
    chosen = make_config(values)
    if chosen.data.labels == "ferplus" and "classes" not in values.get("model", {}):
        values = _merge(values, {"model": {"classes": EMOTIONS_8}})
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
    from simulation.population import Population
    from simulation.progress import Display
    from simulation.report import summary_table, write_report
    from simulation.run import REGISTRY, Engine, RunFolder, default_out, run_simulation

    cores = Engine().cores
    workers = cores if workers is None else workers
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {workers}.")
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
    with display.live():
        population = run_simulation(home, Engine(backend, workers, cores), watch)
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
    folder: Annotated[Path | None, Help("--out", help="The run folder [runs/demo-<time>].")] = None,
    workers: Annotated[int | None, Help(help="Devices that train at once [one per core].")] = None,
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
