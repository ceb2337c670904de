"""A device whose faces are a folder: what `fl_client.node_process` answers with. It imports torch, which takes seconds."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.clientapp import ClientApp

from common.arrays import Arrays
from common.errors import RunError
from common.identity import SigningKey
from common.messages import TrainReply, TrainRequest
from common.privacy.ledger import LedgerPlace
from fl_client.app import build_client_app
from fl_client.device import Device
from fl_client.known_devices import KnownDevicesFile
from fl_client.model_cache import ModelCache
from fl_client.own_head import FEDERATED, PERSONAL
from fl_client.policy import Policy
from models.faces.faceset import FaceSet
from models.faces.folder import read_folder
from models.preprocess import Preprocessing

log = logging.getLogger("emofl.client")

IDENTITY = "identity_key.pem"


@dataclass(frozen=True)
class FolderDevice(Device):
    """A device whose faces are a folder, read anew for each round with the labels that the model has.

    Attributes:
        folder: holds one folder of pictures per emotion.
    """

    folder: Path = Path()

    def answer(self, request: TrainRequest, packed: bytes) -> tuple[TrainReply, Arrays | None]:
        """As `Device.answer`."""

        def faces(preprocessing: Preprocessing) -> FaceSet:
            return read_folder(self.folder, preprocessing, request.model.classes)[0]

        log.info("Round %d of %d: training.", request.round, request.rounds)
        answer = Device.answer(replace(self, faces=faces), request, packed)
        if answer[0].status == "trained":
            way = "waits for the others' to be added up" if request.upload.secure else "is on its way"
            log.info("Round %d of %d: trained; the noisy update %s.", request.round, request.rounds, way)
        return answer


def folder_app(folder: Path, home: Path, ledger: LedgerPlace, policy: Policy, threads: int) -> ClientApp:
    """The ClientApp of this device, the same that simulations run.

    Args:
        home: where its identity in secure sums lies, whom it has met in them, and a head of its own.
    """
    torch.set_num_threads(threads)
    identity = SigningKey.load_or_create(home / IDENTITY)
    device = FolderDevice(
        faces=_unread,
        ledger=ledger,
        policy=policy,
        models=ModelCache(),
        identity=lambda: identity,
        known=KnownDevicesFile(home, policy.accept_new_devices),
        own_head=home / PERSONAL / FEDERATED,
        folder=folder,
    )
    return build_client_app(lambda context: device)


def _unread(preprocessing: Preprocessing) -> FaceSet:
    raise RunError("The faces of a folder are read with the labels of a request.")
