"""A first model from public faces, published like any other, for private training to start from. `fl-sim demo` calls it.

No device's face is in it, so for the devices it costs nothing: its manifest states epsilon 0 and names the public data.
"""

from pathlib import Path

from common.config import PrivacyConfig, RunConfig, TrainConfig
from common.identity import SigningKey
from common.parameters import read_parameters
from common.privacy.mechanisms import SecureRandom
from fl_client.train import make_plan, train_locally
from fl_server.hub import Registry
from fl_server.publisher import Publisher
from fl_server.rounds import Accepted, Rounds
from fl_server.strategy import Tally
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing
from models.starting_point import StartingPoint

BASE = "base"
"""The registry in the folder of a first model."""


def warm_up(config: RunConfig, faces: FaceSet, train: TrainConfig, passes: int, folder: Path, source: str) -> Path:
    """Train the run's network on public `faces`, all of it and without privacy, and publish it to a registry.

    Args:
        passes: how often `train`'s local epochs are run, with its learning rate falling from the first to the last.
        source: what the faces are, for the manifest.

    Returns:
        The registry's folder.
    """
    model = Rounds(config, "warm-up", folder).initial_model()
    weights, preprocessing = read_parameters(model), Preprocessing()
    for epoch in range(1, passes + 1):
        update = train_locally(
            model,
            weights,
            faces,
            make_plan(train, len(faces), epoch, passes),
            train,
            preprocessing,
            privacy=PrivacyConfig(private=False),
            release=None,
            random=SecureRandom(),
            seed=config.seed * passes + epoch,
        )
        weights = {name: weights[name] + update[name] for name in weights}
    registry = folder / BASE
    start = StartingPoint(public_data=source)
    key = SigningKey.load_or_create(folder / "base_key.pem")
    publisher = Publisher(Registry(registry, key), config, "warm-up", model, start=start)
    publisher.publish(Accepted(0, weights, Tally(), None))
    return registry
