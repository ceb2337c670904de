"""A device whose faces are a folder: what `fl_client.node_process` answers with. It imports torch, which takes seconds."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.clientapp import ClientApp

from common.errors import RunError
from common.messages import Arrays, TrainReply, TrainRequest
from fl_client.app import build_client_app
from fl_client.device import Device, ModelCache
from fl_client.policy import Policy
from models.faces.faceset import FaceSet
from models.faces.folder import read_folder
from models.preprocess import Preprocessing

log = logging.getLogger("emofl.client")


@dataclass(frozen=True)
class FolderDevice(Device):
    """A device whose faces are a folder, read anew for each round with the labels that the model has.

    Attributes:
        folder: holds one folder of pictures per emotion.
    """

    folder: Path = Path()

    def answer(self, request: TrainRequest, weights: Arrays) -> tuple[TrainReply, Arrays | None]:
        """As `Device.answer`."""

        def faces(preprocessing: Preprocessing) -> FaceSet:
            return read_folder(self.folder, preprocessing, request.model.classes)[0]

        log.info("Round %d of %d: training.", request.round, request.rounds)
        answer = Device.answer(replace(self, faces=faces), request, weights)
        if answer[0].status == "trained":
            log.info("Round %d of %d: trained; the noisy update is on its way.", request.round, request.rounds)
        return answer


def folder_app(folder: Path, ledger: Path, policy: Policy, threads: int) -> ClientApp:
    """The ClientApp of this device, the same that simulations run."""
    torch.set_num_threads(threads)
    device = FolderDevice(faces=_unread, ledger=ledger, policy=policy, models=ModelCache(), folder=folder)
    return build_client_app(lambda context: device)


def _unread(preprocessing: Preprocessing) -> FaceSet:
    raise RunError("The faces of a folder are read with the labels of a request.")
