"""`fl-server start | resume`: a server begins, or goes on. `fl_server.cli` mounts these commands.

Libraries are imported when a command needs them, so that a wrong option is told at once.
"""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.markup import escape

from common.certificates import normal_name
from common.config import (
    ClientMode,
    LossName,
    Precision,
    RunConfig,
    Trainable,
    merge_settings,
    named_counts,
    nest_settings,
    read_config,
)
from common.console import out, print_json
from common.errors import ConfigError, RunError
from fl_server.addresses import every_address, is_every, likely_address, own_addresses, with_port
from fl_server.status_commands import Folder, Json, server_home

if TYPE_CHECKING:
    from fl_server.run_folder import RunFolder

D = RunConfig()
MOST_DEVICES = 1_000_000
PORT = 8443

Host = Annotated[str | None, typer.Option(help="Address to listen on (default: all, IPv4 and IPv6).")]
Address = Annotated[str | None, typer.Option(help="How devices reach this machine: a name or an address (default: detected).")]
Port = Annotated[int, typer.Option(min=0, max=65533, help="HTTPS for devices; joining and models use the two after it.")]
Until = Annotated[bool, typer.Option("--until-finished", help="End when the run has ended.")]
Who = Literal["nobody", "token", "anybody"]
Predict = Annotated[
    Who, typer.Option(help="Who may send pictures to /v1/predict, which the server then sees: nobody, token or anybody.")
]


def start(
    folder: Folder = None,
    host: Host = None,
    address: Address = None,
    port: Port = PORT,
    rounds: Annotated[int | None, typer.Option(min=1, help=f"Rounds of training (default {D.server.rounds}).")] = None,
    min_clients: Annotated[
        int | None, typer.Option(min=1, help=f"Devices that a round needs (default {D.fewest_updates}).")
    ] = None,
    cohort: Annotated[int | None, typer.Option(min=1, help="Devices asked per round (default: all).")] = None,
    round_timeout: Annotated[
        float | None,
        typer.Option(help=f"Seconds after which a round goes on without the missing (default {D.server.round_timeout:g})."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help=f"Record-level budget that is asked of devices (default {D.privacy.epsilon:g}).")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"A variant of models.mobilenet (default {D.model.name}).")] = None,
    trainable: Annotated[
        Trainable | None,
        typer.Option(help=f"What is trained and uploaded (default {D.model.trainable})."),
    ] = None,
    loss: Annotated[
        LossName | None,
        typer.Option(help=f"How classes weigh; class-balanced and logit-adjusted need class counts (default {D.train.loss})."),
    ] = None,
    class_counts: Annotated[
        str | None, typer.Option(help="Public numbers of faces per class, for --loss, as in happiness=7215,fear=4097,...")
    ] = None,
    class_histogram: Annotated[
        bool,
        typer.Option(
            "--class-histogram",
            help="Sum up the devices' faces per class once, under noise, for --loss and the manifest; costs epsilon.",
        ),
    ] = False,
    personal_head: Annotated[
        bool, typer.Option("--personal-head", help="Each device keeps a head of its own, which is never uploaded.")
    ] = False,
    client_dp: Annotated[
        ClientMode | None,
        typer.Option(help=f"Privacy of whole devices: noise by the server, or a share by each (default {D.client_level.mode})."),
    ] = None,
    client_epsilon: Annotated[
        float | None, typer.Option(help=f"Its epsilon, over the run (default {D.client_level.epsilon:g}).")
    ] = None,
    client_delta: Annotated[float | None, typer.Option(help=f"Its delta (default {D.client_level.delta:g}).")] = None,
    client_clip: Annotated[
        float | None, typer.Option(help=f"Largest norm of a device's update under it (default {D.client_level.clip:g}).")
    ] = None,
    adaptive_clip: Annotated[
        bool, typer.Option("--adaptive-clip", help="Let that norm follow the median of the devices' (central).")
    ] = False,
    sum_bits: Annotated[
        int | None, typer.Option(help=f"Width of the integers of a sum with noise shares (default {D.client_level.bits}).")
    ] = None,
    no_secure_aggregation: Annotated[
        bool, typer.Option("--no-secure-aggregation", help="See each device's update; devices refuse unless told otherwise.")
    ] = False,
    upload: Annotated[
        Precision | None,
        typer.Option(help=f"How values are rounded; secure sums: float32 or int16 (default {D.upload.precision})."),
    ] = None,
    federated_evaluation: Annotated[
        bool,
        typer.Option("--federated-evaluation", help="Also sum up how often the model is right on the devices; costs epsilon."),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(help="scratch, base (the model that ships) or a published one's folder (default: base where it fits)."),
    ] = None,
    keep_models: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Published models that stay, the newest of all runs; at least 3 for slow devices (default: all, 12 MB each).",
        ),
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(help="Public faces to evaluate each model on: fer2013.csv or a folder.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with any settings of a run; options win over it.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start another run although the last one is not finished.")] = False,
    until_finished: Until = False,
    predict: Predict = "nobody",
) -> None:
    """Run the server: enrol devices, train with them, publish signed models. Goes on with an unfinished run.

    The first start makes a certificate authority, keys and a token in --dir, readable by you alone.
    """
    options = {
        "server.rounds": rounds,
        "server.min_replies": min_clients,
        "server.cohort": cohort,
        "server.round_timeout": round_timeout,
        "server.keep_models": keep_models,
        "privacy.epsilon": epsilon,
        "model.name": model,
        "model.trainable": trainable,
        "train.loss": loss,
        "train.class_counts": None if class_counts is None else named_counts(class_counts),
        "train.local_layers": "head" if personal_head else None,
        "evaluation.class_histogram": class_histogram or None,
        "client_level.mode": client_dp,
        "client_level.epsilon": client_epsilon,
        "client_level.delta": client_delta,
        "client_level.clip": client_clip,
        "client_level.adaptive": adaptive_clip or None,
        "client_level.bits": sum_bits,
        "upload.secure": False if no_secure_aggregation else None,
        "upload.precision": upload,
        "evaluation.federated": federated_evaluation or None,
        "data.path": None if evaluate is None else str(evaluate.expanduser().resolve()),
        "init": init,
    }
    values = merge_settings(read_config(config) if config else {}, nest_settings(options))
    home = server_home(folder)
    _serve(home, _choose_run(home, values, new), host, address, port, until_finished, predict)


def resume(
    folder: Folder = None,
    host: Host = None,
    address: Address = None,
    port: Port = PORT,
    until_finished: Until = False,
    predict: Predict = "nobody",
    as_json: Json = False,
) -> None:
    """Run the server and go on with its last run, with that run's own settings."""
    from fl_server.run_folder import RunFolder

    home = server_home(folder)
    run = RunFolder.latest(home)
    if run is None:
        raise RunError(f"{home} holds no run to go on with: fl-server start begins one.")
    _serve(home, run, host, address, port, until_finished, predict, as_json=as_json)


def _choose_run(home: Path, values: dict[str, Any], new: bool) -> "RunFolder":
    """The last run, if it has these settings or none are given; else a new one, once the last is finished.

    So the same command at every boot of a machine begins one run, and not one at every boot.
    """
    from fl_server.run_folder import RunFolder
    from fl_server.server_folder import ServerFolder
    from fl_server.server_lock import running_server

    if running_server(home) is not None:
        raise RunError(f"A server already runs with {home}: fl-server stop ends it.")
    last = RunFolder.latest(home)
    if last is not None and not new and not values:
        return last
    wanted = _deployed(values)
    if last is not None and not new:
        if wanted == last.config:
            return last
        if last.done < last.config.server.rounds:
            raise ConfigError(
                f"The run {last.name} is not finished, and these settings are not its own. Give none to go on with it, "
                "or --new to start another."
            )
    if (faces := wanted.data.path) is not None:
        from models.faces.source import open_faces

        # Looked at once now, so that a wrong --evaluate leaves no run behind that cannot begin.
        open_faces(faces, labels=wanted.data.labels, usage="PublicTest", classes=wanted.model.classes)
    ServerFolder.prepare(home)
    return RunFolder.create(home, wanted, datetime.now(UTC))


def _deployed(values: dict[str, Any]) -> RunConfig:
    """A run's configuration; how many devices there are is not for the server to know in advance."""
    from models.starting_point import choose_start

    data = values.get("data", {})
    return choose_start(values | {"data": {"clients": MOST_DEVICES, **(data if isinstance(data, dict) else {})}})


def _serve(
    home: Path,
    run: "RunFolder",
    host: str | None,
    address: str | None,
    port: int,
    until_finished: bool,
    predict: Who,
    as_json: bool = False,
) -> NoReturn:
    from fl_server.plan import Plan
    from fl_server.service_process import become

    known, host = own_addresses(), host or every_address()
    at = normal_name(address or (likely_address(known) if is_every(host) else host))
    names = tuple(dict.fromkeys(name for name in (*known, socket.gethostname(), "localhost", "127.0.0.1") if name != at))
    ports = (port, port + 1, port + 2) if port else (0, 0, 0)
    plan = Plan(home, host, at, names, *ports, run=run, until_finished=until_finished, predict=predict)
    wanted = run.config.server
    if as_json:
        told = {"dir": str(home), "run": run.name, "round": run.done, "rounds": wanted.rounds, "address": at}
        print_json(told, indent=None)
        become(plan)
    out.print(f"Server folder: {escape(str(home))}", soft_wrap=True)
    out.print(
        f"Run {run.name}: {run.done} of {wanted.rounds} rounds done; a round needs {run.config.fewest_updates} devices.",
        soft_wrap=True,
    )
    out.print(
        f"Devices join at {escape(at)}; [bold]fl-server invite[/] prints a code for each. On this machine none is needed.",
        soft_wrap=True,
    )
    if predict != "nobody":
        said = f"with the token in {home}/predict.token" if predict == "token" else "from anybody"
        where = f"at https://{with_port(at, port)}/v1/predict" if port else "under /v1/predict"
        out.print(escape(f"Pictures {said} are answered {where}; nothing is stored."), soft_wrap=True)
    become(plan)
