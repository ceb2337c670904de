"""One side of `benchmarks.simulation`'s whole round: `python -m benchmarks.simulation_job (ours|flower) ...`.

Both sides read the same faces and first weights from FOLDER and wait for a line on standard input before each round, so that they
can take turns; after it they print one. `flower` is Flower's documented way to DP-SGD: a model and an Opacus `PrivacyEngine`
per message, FedAvg, Ray.
"""

import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from benchmarks.sides import await_turn, tell
from common.config import ModelConfig

CLIPPING_NORM, EPSILON, RATE, BATCH, MODEL = 1.0, 8.0, 0.05, 32, "mobilenet_v3_small"


def accuracy(model: nn.Module, folder: Path) -> float:
    data = np.load(folder / "test.npz")
    inputs = normalised(data["images"])
    model.eval()
    with torch.inference_mode():
        right = [
            (model(part).argmax(1) == labels.argmax(1)).float().sum()
            for part, labels in zip(inputs.split(128), torch.from_numpy(data["targets"]).split(128), strict=True)
        ]
    return float(sum(right)) / len(inputs)


def normalised(images: np.ndarray) -> torch.Tensor:
    from models.preprocess import Preprocessing

    return torch.from_numpy(Preprocessing().normalise(images))


def run_rounds(rounds: int, one_round: Callable[[int], nn.Module], folder: Path) -> None:
    for number in range(1, rounds + 1):
        await_turn()
        began = time.monotonic()
        model = one_round(number)
        tell(round=number, wall=time.monotonic() - began)
        await_turn()
        tell(accuracy=accuracy(model, folder))


def flower(folder: Path, clients: int, rounds: int, steps: int, noise: float) -> None:
    """As flower.ai/docs/examples/opacus does it, with the Message API of today."""
    from flwr.simulation import run_simulation

    warnings.simplefilter("ignore")

    def network() -> nn.Module:
        from models.mobilenet import build_model

        return build_model(ModelConfig(name=MODEL)).to(memory_format=torch.contiguous_format)

    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        from opacus import PrivacyEngine
        from torch.utils.data import DataLoader, TensorDataset

        warnings.simplefilter("ignore")
        logging.getLogger("opacus").setLevel(logging.ERROR)
        model = network()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model.train()
        data = np.load(folder / f"device-{context.node_config['partition-id']}.npz")
        loader = DataLoader(
            TensorDataset(normalised(data["images"]), torch.from_numpy(data["targets"])), batch_size=BATCH, shuffle=True
        )
        private, optimizer, loader = PrivacyEngine(secure_mode=False).make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9),
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=CLIPPING_NORM,
        )
        taken = 0
        for images, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(private(images), targets).backward()
            optimizer.step()
            taken += 1
        content = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(data["images"]), "steps": taken}),
        }
        return Message(RecordDict(content), reply_to=message)

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        model = network()
        first = np.load(folder / "weights.npz")
        model.load_state_dict({name: torch.from_numpy(first[name]) for name in first.files})
        tell(ready=True)

        def one_round(number: int) -> nn.Module:
            strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
            result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=1)
            model.load_state_dict(result.arrays.to_torch_state_dict())
            return model

        run_rounds(rounds, one_round, folder)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    cores = torch.get_num_threads()
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": cores, "logging_level": "ERROR"}}
    run_simulation(server, client, clients, backend_config=resources)


def ours(folder: Path, clients: int, rounds: int, steps: int, noise: float) -> None:
    """The devices' and the server's real code over the simulation's grid."""
    from functools import partial

    from common.config import make_config
    from fl_client.app import build_client_app
    from fl_server.app import build_server_app
    from fl_server.rounds import Observers, Rounds
    from models.faces.faceset import FaceSet
    from models.mobilenet import build_model
    from simulation.backend import make_crew, simulate
    from simulation.devices import SimulatedDevices

    config = make_config(
        {
            "data": {"clients": clients},
            "server": {"rounds": rounds, "min_replies": clients},
            "train": {"local_steps": steps, "batch_size": BATCH, "learning_rate": RATE, "decay": 1.0, "augment": False},
            "privacy": {"clipping_norm": CLIPPING_NORM, "epsilon": EPSILON},
            "upload": {"secure": False},
        }
    )
    classes = config.model.classes

    def open_faces(number: int) -> FaceSet:
        data = np.load(folder / f"device-{number}.npz")
        return FaceSet(data["images"], data["targets"], classes)

    devices = SimulatedDevices(config, folder / "devices", open_faces)
    first = np.load(folder / "weights.npz")
    model = build_model(config.model)
    gate: list[float] = []

    def on_round(record: dict[str, object]) -> None:
        if record["round"]:
            tell(round=record["round"], wall=time.monotonic() - gate.pop(), accepted=record["accepted"])
            await_turn()
            from fl_server.checkpoint import Checkpoint

            state = Checkpoint.load(folder / "ours" / "checkpoint.safetensors")
            model.load_state_dict({name: torch.from_numpy(value) for name, value in state.weights.items()})
            tell(accuracy=accuracy(model, folder))
        else:
            tell(ready=True)
        if record["round"] != rounds:
            await_turn()
            gate.append(time.monotonic())

    (folder / "ours").mkdir()
    whole = Rounds(config, "benchmark", folder / "ours", None, observers=Observers(on_round=on_round), poll=0.002)
    weights = {name: first[name] for name in first.files}
    simulate(
        lambda order, stopped: build_server_app(whole, weights),
        partial(build_client_app, devices.open),
        clients,
        make_crew("in-process", torch.get_num_threads(), torch.get_num_threads()),
    )


if __name__ == "__main__":
    side, where, count, many, each, sigma = sys.argv[1:]
    {"ours": ours, "flower": flower}[side](Path(where), int(count), int(many), int(each), float(sigma))
