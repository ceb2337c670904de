"""`fl-sim run`: every setting of a run as an option, in groups. `simulation.cli` registers it."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from common.config import (
    LEARNING_RATES,
    ClientMode,
    LossName,
    Optimiser,
    Precision,
    RunConfig,
    Scheme,
    Strategy,
    Trainable,
    merge_settings,
    named_counts,
    nest_settings,
    read_config,
)
from common.emotions import EMOTIONS_8
from common.errors import ConfigError
from common.privacy.release import Accountant
from models.starting_point import choose_start
from simulation.perform import perform

Help = typer.Option
DataOption = partial(Help, rich_help_panel="Data")
PrivacyOption = partial(Help, rich_help_panel="Privacy")
ModelOption = partial(Help, rich_help_panel="Model")
RoundsOption = partial(Help, rich_help_panel="Rounds")
TrainOption = partial(Help, rich_help_panel="Local training")
UploadOption = partial(Help, rich_help_panel="What the server sees")
ClientOption = partial(Help, rich_help_panel="Privacy of whole devices")
RunOption = partial(Help, rich_help_panel="Run")


D = RunConfig()
"""What the help texts quote."""


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
        Accountant | None,
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
        Trainable | None,
        ModelOption(help=f"What is trained and uploaded (default {D.model.trainable})."),
    ] = None,
    init: Annotated[
        str | None,
        ModelOption(
            help="scratch, base (the model that ships), or the folder of a published model or of a base of your own "
            "(default: base where it fits)."
        ),
    ] = None,
    rounds: Annotated[int | None, RoundsOption(help=f"Rounds of training (default {D.server.rounds}).")] = None,
    cohort: Annotated[int | None, RoundsOption(help="Devices asked per round (default: all).")] = None,
    strategy: Annotated[
        Strategy | None,
        RoundsOption(help=f"How the server uses the devices' mean (default {D.server.strategy})."),
    ] = None,
    server_lr: Annotated[float | None, RoundsOption(help="Of fedavgm (default 1) and fedadam (default 0.01).")] = None,
    ema: Annotated[
        float | None, RoundsOption(help="Publish a moving average of the models; this much of it stays each round.")
    ] = None,
    mu: Annotated[float | None, RoundsOption(help="FedProx's pull to the global model.")] = None,
    batch_size: Annotated[int | None, TrainOption(help=f"Expected examples per step (default {D.train.batch_size}).")] = None,
    local_epochs: Annotated[
        float | None,
        TrainOption(help=f"Passes over a device's faces per round (default {D.train.local_epochs:g})."),
    ] = None,
    local_steps: Annotated[int | None, TrainOption(help="Steps per round instead of passes.")] = None,
    optimiser: Annotated[Optimiser | None, TrainOption(help=f"Of the devices (default {D.train.optimiser}).")] = None,
    lr: Annotated[
        float | None,
        TrainOption(help=f"Local learning rate (default: sgd {LEARNING_RATES['sgd']:g}, adamw {LEARNING_RATES['adamw']:g})."),
    ] = None,
    augmentations: Annotated[
        int | None, TrainOption(help="Augmented copies of each face in a step, averaged before clipping: so many times the work.")
    ] = None,
    no_augment: Annotated[
        bool,
        TrainOption(
            "--no-augment", help="Faces as they are: with frozen layers, what these make of a face is then computed only once."
        ),
    ] = False,
    momentum: Annotated[float | None, TrainOption(help=f"Of local SGD (default {D.train.momentum:g}).")] = None,
    loss: Annotated[
        LossName | None,
        TrainOption(help=f"How classes weigh; class-balanced and logit-adjusted need class counts (default {D.train.loss})."),
    ] = None,
    class_counts: Annotated[
        str | None, TrainOption(help="Public numbers of faces per class, for --loss, as in happiness=7215,fear=4097,...")
    ] = None,
    personal_head: Annotated[
        bool, TrainOption("--personal-head", help="Each device keeps a head of its own, which is never uploaded.")
    ] = False,
    client_dp: Annotated[
        ClientMode | None,
        ClientOption(help=f"Who adds the noise: the server, or each device its share (default {D.client_level.mode})."),
    ] = None,
    client_epsilon: Annotated[
        float | None, ClientOption(help=f"Client-level epsilon of the run (default {D.client_level.epsilon:g}).")
    ] = None,
    client_delta: Annotated[float | None, ClientOption(help=f"Client-level delta (default {D.client_level.delta:g}).")] = None,
    client_clip: Annotated[
        float | None, ClientOption(help=f"Largest norm of a device's update (default {D.client_level.clip:g}).")
    ] = None,
    adaptive_clip: Annotated[bool, ClientOption("--adaptive-clip", help="Let it follow the median (central).")] = False,
    sum_bits: Annotated[
        int | None, ClientOption(help=f"Width of a distributed sum's integers (default {D.client_level.bits}).")
    ] = None,
    no_secure_aggregation: Annotated[
        bool, UploadOption("--no-secure-aggregation", help="Let the server see each device's update.")
    ] = False,
    federated_evaluation: Annotated[
        bool,
        UploadOption("--federated-evaluation", help="Also sum up how often the model is right on the devices; costs epsilon."),
    ] = False,
    class_histogram: Annotated[
        bool,
        UploadOption(
            "--class-histogram",
            help="Sum up the devices' faces per class once, under noise, for --loss and the manifest; costs epsilon.",
        ),
    ] = False,
    upload: Annotated[
        Precision | None,
        UploadOption(help=f"How values are rounded; secure sums: float32 or int16 (default {D.upload.precision})."),
    ] = None,
    seed: Annotated[
        int | None,
        RunOption(help=f"Of data, initial weights, cohorts and shuffling; never of noise (default {D.seed})."),
    ] = None,
    keep_models: Annotated[
        int | None, RunOption(help="Published models that stay, the newest (default: all, 12 MB each).")
    ] = None,
    config: Annotated[Path | None, RunOption(help="A TOML file with any of these settings; options win over it.")] = None,
    folder: Annotated[Path | None, RunOption("--out", help="The run folder (default: runs/<time>).")] = None,
    resume: Annotated[Path | None, RunOption(help="Go on with the run in this folder, with its own settings.")] = None,
    backend: Annotated[
        Literal["in-process", "processes", "ray"],
        RunOption(help="What runs the devices: threads, a process per worker, or Ray."),
    ] = "in-process",
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
            "init": init,
            "server.rounds": rounds,
            "server.cohort": cohort,
            "server.strategy": strategy,
            "server.server_learning_rate": server_lr,
            "train.proximal_mu": mu,
            "train.batch_size": batch_size,
            "train.local_epochs": local_epochs,
            "train.local_steps": local_steps,
            "train.optimiser": optimiser,
            "train.learning_rate": lr,
            "train.momentum": momentum,
            "train.augment": False if no_augment else None,
            "train.augmentations": augmentations,
            "train.loss": loss,
            "train.class_counts": None if class_counts is None else named_counts(class_counts),
            "train.local_layers": "head" if personal_head else None,
            "server.ema": ema,
            "server.keep_models": keep_models,
            "upload.secure": False if no_secure_aggregation else None,
            "upload.precision": upload,
            "evaluation.federated": federated_evaluation or None,
            "evaluation.class_histogram": class_histogram or None,
            "client_level.mode": client_dp,
            "client_level.epsilon": client_epsilon,
            "client_level.delta": client_delta,
            "client_level.clip": client_clip,
            "client_level.adaptive": adaptive_clip or None,
            "client_level.bits": sum_bits,
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
    data, model = values.get("data", {}), values.get("model", {})
    if isinstance(data, dict) and isinstance(model, dict) and data.get("labels") == "ferplus" and "classes" not in model:
        values = merge_settings(values, {"model": {"classes": EMOTIONS_8}})
    return choose_start(values)
