"""One side of `benchmarks.pfl_cifar`: `python -m benchmarks.pfl_cifar_job (ours|pfl|flower) ...`, as its makers would write it.

The job is the CIFAR-10 benchmark of pfl-research (Granqvist et al. 2024, table 1): its CNN of two convolutions, users of 50
images, one local epoch in batches of 10, plain federated averaging. Images are random: only time is measured.
"""

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.sides import await_turn, tell

IMAGES, BATCH, RATE, CLASSES = 50, 10, 0.1, 10


def network() -> nn.Sequential:
    """(N, 3, 32, 32) -> (N, 10)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(14 * 14 * 64, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, CLASSES),
    )


def data(users: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (users, 50, 3, 32, 32) images and int64 (users, 50) labels."""
    random = np.random.default_rng(0)
    return (
        random.integers(0, 255, (users, IMAGES, 3, 32, 32), dtype=np.uint8),
        random.integers(0, CLASSES, (users, IMAGES), dtype=np.int64),
    )


def normalised(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float().sub_(127.5).mul_(1 / 73.9)


def ours(users: int, cohort: int, rounds: int) -> None:
    """The simulation's grid and crew, the server's exchange and running mean; weights travel as one vector."""
    from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    from fl_server.aggregate import RunningMean, UpdateShape
    from fl_server.exchange import Exchange
    from simulation.backend import make_crew, simulate

    images, labels = data(users)
    kept = threading.local()

    def worker() -> tuple[nn.Sequential, torch.Tensor]:
        """This worker's one model; its parameters, and their gradients, are views of one vector each."""
        if not hasattr(kept, "model"):
            kept.model = network().to(memory_format=torch.channels_last)
            kept.flat = torch.cat([p.detach().reshape(-1) for p in kept.model.parameters()])
            kept.slopes = torch.zeros_like(kept.flat)
            start = 0
            for p in kept.model.parameters():
                part = slice(start, start + p.numel())
                p.data = kept.flat[part].view(p.shape)
                p.grad = kept.slopes[part].view(p.shape)
                start += p.numel()
        return kept.model, kept.flat

    def record(values: np.ndarray) -> ArrayRecord:
        return ArrayRecord({"flat": Array("float32", values.shape, "flat", values.tobytes())})

    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        model, flat = worker()
        first = torch.frombuffer(bytearray(message.content["arrays"]["flat"].data), dtype=torch.float32)
        flat.copy_(first)
        model.train()
        user = int(context.node_config["partition-id"])
        for rows in np.random.default_rng().permutation(IMAGES).reshape(-1, BATCH):
            kept.slopes.zero_()
            inputs = normalised(images[user, rows]).contiguous(memory_format=torch.channels_last)
            F.cross_entropy(model(inputs), torch.from_numpy(labels[user, rows])).backward()
            flat.sub_(kept.slopes, alpha=RATE)
        return Message(RecordDict({"arrays": record((flat - first).numpy())}), reply_to=message)

    def server_app(order: object, stopped: object) -> ServerApp:
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            weights = np.concatenate([p.detach().numpy().ravel() for p in network().parameters()])
            shape = UpdateShape({"flat": weights.shape}, 1000.0)
            exchange, random = Exchange(grid, 0.002), np.random.default_rng(1)
            tell(ready=True)
            for number in range(rounds):
                await_turn()
                began = time.monotonic()
                content, mean = RecordDict({"arrays": record(weights)}), RunningMean(shape)
                nodes = list(grid.get_node_ids())
                chosen = [nodes[i] for i in random.choice(users, cohort, replace=False)]
                for reply in exchange.ask((Message(content, dst_node_id=n, message_type="train") for n in chosen), 600):
                    mean.add({"flat": np.frombuffer(reply.content["arrays"]["flat"].data, np.float32)})
                weights = weights + mean.mean()["flat"]
                tell(round=number, wall=time.monotonic() - began)

        return server

    simulate(server_app, lambda: client, users, make_crew("in-process", 1, 1))


def pfl(users: int, cohort: int, rounds: int) -> None:
    """As its own benchmark: `benchmarks/image_classification/pytorch/train.py` of pfl-research."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    images, labels = data(users)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layers(inputs)

        def loss(self, inputs: torch.Tensor, targets: torch.Tensor, eval: bool = False) -> torch.Tensor:
            self.train(not eval)
            return F.cross_entropy(self(inputs), targets)

        @torch.no_grad()
        def metrics(self, inputs: torch.Tensor, targets: torch.Tensor, eval: bool = True) -> dict[str, Weighted]:
            self.train(not eval)
            return {"loss": Weighted(F.cross_entropy(self(inputs), targets, reduction="sum").item(), len(inputs))}

    slices = {user: (normalised(images[user]), torch.from_numpy(labels[user])) for user in range(users)}
    federated = FederatedDataset.from_slices(slices, get_user_sampler("random", range(users)))
    module = Net()
    model = PyTorchModel(
        model=module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    began = [0.0]

    class Turns(TrainingProcessCallback):
        def on_train_begin(self, *, model: object) -> object:
            tell(ready=True)
            await_turn()
            began[0] = time.monotonic()
            return super().on_train_begin(model=model)

        def after_central_iteration(self, aggregate_metrics: object, model: object, *, central_iteration: int) -> object:
            tell(round=central_iteration, wall=time.monotonic() - began[0])
            if central_iteration + 1 < rounds:
                await_turn()
            began[0] = time.monotonic()
            return super().after_central_iteration(aggregate_metrics, model, central_iteration=central_iteration)

    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=10**6, train_cohort_size=cohort, val_cohort_size=0
        ),
        backend=SimulatedBackend(training_data=federated, val_data=federated, postprocessors=[]),
        model=model,
        model_train_params=NNTrainHyperParams(local_learning_rate=RATE, local_num_epochs=1, local_batch_size=BATCH),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Turns()],
    )


def flower(users: int, cohort: int, rounds: int) -> None:
    """As Flower's PyTorch quickstart: a model and a DataLoader per message, FedAvg, Ray."""
    import logging
    import warnings

    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        from torch.utils.data import DataLoader, TensorDataset

        model = network()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model.train()
        random = np.random.default_rng(int(context.node_config["partition-id"]))
        inputs = normalised(random.integers(0, 255, (IMAGES, 3, 32, 32), dtype=np.uint8))
        targets = torch.from_numpy(random.integers(0, CLASSES, IMAGES, dtype=np.int64))
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for images, labels in DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": IMAGES})}
        return Message(RecordDict(content), reply_to=message)

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(network().state_dict())
        tell(ready=True)
        for number in range(rounds):
            await_turn()
            began = time.monotonic()
            strategy = FedAvg(
                fraction_train=cohort / users, fraction_evaluate=0.0, min_train_nodes=cohort, min_available_nodes=users
            )
            arrays = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1).arrays
            tell(round=number, wall=time.monotonic() - began)

    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1, "logging_level": "ERROR"}}
    run_simulation(server, client, users, backend_config=resources)


SIDES: dict[str, Callable[[int, int, int], None]] = {"ours": ours, "pfl": pfl, "flower": flower}

if __name__ == "__main__":
    torch.set_num_threads(1)
    SIDES[sys.argv[1]](*(int(word) for word in sys.argv[2:]))
