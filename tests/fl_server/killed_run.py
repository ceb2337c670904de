"""A run that is killed after its second round: `python -m tests.fl_server.killed_run FOLDER STRATEGY`, for test_rounds.py.

A program of its own, not a fork of the tests: theirs has threads of gRPC and of kernels, any of which may hold a lock at a fork,
and a child that waits for such a lock waits for ever.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from flwr.supercore.task_identity import TaskIdentity

from fl_server.rounds import Observers
from tests.fl_server.test_rounds import five_rounds


def die(record: dict[str, Any]) -> None:
    if record["round"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in conftest.py
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    folder, strategy = sys.argv[1:]
    five_rounds(Path(folder), strategy, observers=Observers(on_round=die))
