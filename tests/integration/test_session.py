"""The session of docs/deployment.md, run as a reader would type it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation import PATIENCE, free_ports
from tests.realdata import export

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "session.sh"


def test_the_page_shows_the_very_script_that_is_tested() -> None:
    assert f"```sh\n{SCRIPT.read_text()}```\n" in (ROOT / "docs" / "deployment.md").read_text()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("faces", ["drawn", "real"])
def test_the_session_in_the_documentation_works_as_written(tmp_path: Path, faces: str) -> None:
    here, crops = str(tmp_path), ""
    if faces == "real":
        crops = str(export(tmp_path / "crops", "folders", "--limit", "3000"))
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": here, "XDG_STATE_HOME": here, "XDG_RUNTIME_DIR": here, "PATH": commands, "PORT": str(free_ports())}
    own |= {"FACES": crops}
    done = subprocess.run(
        ["bash", str(SCRIPT)], cwd=tmp_path, env=dict(os.environ) | own, capture_output=True, text=True, timeout=900 * PATIENCE
    )
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert "The server has stopped." in done.stdout
    assert done.stdout.count("debits holds") == 2
    assert "Traceback" not in done.stdout + done.stderr + "".join(logs.values())
    assert "revoked" in logs["dev3.log"]
    with open(tmp_path / "seen.csv") as file:
        versions = {row["model"] for row in csv.DictReader(file)}
    assert len(versions) >= 2, f"the camera loop saw one model only: {versions}"
    assert "Now " in logs["webcam.log"]
    dealt = len(list((tmp_path / "faces1").rglob("*.png")))
    assert (dealt == 140) if faces == "drawn" else dealt > 50
