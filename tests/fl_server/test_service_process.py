"""The server's processes as an operator meets them: one that cannot be loaded, one that does not end."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import DependencyError, RunError
from fl_server import status_commands
from fl_server.run_folder import RunFolder
from fl_server.server_folder import ServerFolder
from fl_server.server_lock import running_server
from fl_server.service_process import PLAN
from fl_server.status_commands import STOP_SECONDS, stop
from fl_server.task import Task
from tests.common.test_processes import ended

HERE = Path(__file__).parents[2]
SERVING = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from fl_server import service, service_process
service.serve = lambda plan, say, stop, **more: say(str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])) or "finished"
service_process.main()
"""
HOLDER = """
import signal, sys, time
from pathlib import Path
from fl_server.server_lock import only_server
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with only_server(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""
SERVERAPP_PARENT = """
import os, subprocess, sys, time
environment = dict(os.environ) | {"EMOFL_PARENT": str(os.getpid())}
command = [sys.executable, "-m", "fl_server.serverapp_process"]
child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_broken_installation_is_told_in_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "flwr"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libfancy.so.3: cannot open shared object file')")
    environment = dict(os.environ) | {"PYTHONPATH": f"{tmp_path}:{HERE}", "COLUMNS": "500"}
    command = [sys.executable, "-P", "-m", "fl_server.service_process"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == DependencyError.exit_code
    assert found.stderr.count("\n") == 1
    assert "libfancy" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_server_may_have_as_many_connections_open_as_the_system_allows(tmp_path: Path) -> None:
    environment = dict(os.environ) | {PLAN: json.dumps({"folder": str(tmp_path), "run": None, "names": []})}
    found = subprocess.run([sys.executable, "-c", SERVING], env=environment, cwd=HERE, capture_output=True, text=True, timeout=60)
    assert found.stderr.splitlines() == [str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), "The server has stopped."]


@contextmanager
def holding(folder: Path, manner: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), manner], cwd=HERE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def test_a_server_that_is_told_to_stop_and_does_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with holding(tmp_path, "obedient"):
        stop(tmp_path)
    assert "has stopped" in capsys.readouterr().out
    with pytest.raises(RunError, match="No server runs"):
        stop(tmp_path)


def test_of_a_server_that_takes_longer_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_commands, "STOP_SECONDS", 0.3)
    with holding(tmp_path, "deaf") as process:
        with pytest.raises(RunError, match=f"kill -9 {process}"):
            stop(tmp_path)
        assert running_server(tmp_path) == process


def test_a_stop_waits_for_longer_than_a_server_may_take() -> None:
    """Its ServerApp process 10 s, the two HTTP ports 10 s each, the device API's grace and the service's own look."""
    assert STOP_SECONDS > 1.5 * (10 + 10 + 10 + 1 + 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_serverapps_process_ends_with_a_killed_server_that_nobody_waits_for(tmp_path: Path) -> None:
    """It was found alive half an hour later, asking a server that was gone."""
    with socket.create_server(("127.0.0.1", 0)) as runtime:
        address = f"127.0.0.1:{runtime.getsockname()[1]}"
        task = Task("token", address, ServerFolder(tmp_path), RunFolder(tmp_path / "runs" / "a"), 0)
        environment = dict(os.environ) | task.environment() | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen([sys.executable, "-c", SERVERAPP_PARENT], env=environment, stdout=subprocess.PIPE, text=True)
        with server:
            assert server.stdout is not None
            process = int(server.stdout.readline())
            try:
                # It asks, and is never answered.
                runtime.settimeout(120)
                with runtime.accept()[0] as asking:
                    assert asking.recv(100)
                assert not ended(process)
                server.kill()
                end = time.monotonic() + 5
                while not ended(process) and time.monotonic() < end:
                    time.sleep(0.1)
                assert ended(process)
            finally:
                server.kill()
                if not ended(process):
                    os.kill(process, signal.SIGKILL)
