"""Writes the stubs from `fl_server/device_api.proto`; see the package's docstring. Nothing else imports it."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent
PROTO = PACKAGE.parents[1] / "fl_server" / "device_api.proto"
HEADER = "# mypy: ignore-errors\n# ruff: noqa\n# fmt: off\n"


def main() -> None:
    """Generate, take out what ties the output to one library version, and write it into this package."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "common" / "device_api"
        folder.mkdir(parents=True)
        shutil.copy(PROTO, folder / PROTO.name)
        outputs = [f"--{kind}_out={name}" for kind in ("python", "pyi", "grpc_python")]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{name}", *outputs, str(folder / PROTO.name)]
        subprocess.run(command, check=True)
        for path in (*folder.glob("*.py"), *folder.glob("*.pyi")):
            (PACKAGE / path.name).write_text(HEADER + _loosened(path.read_text()))


def _loosened(text: str) -> str:
    text = re.sub(r"^from google.protobuf import runtime_version.*\n", "", text, flags=re.M)
    text = re.sub(r"^_runtime_version\.ValidateProtobufRuntimeVersion\([^)]*\)\n", "", text, flags=re.M)
    return re.sub(r"^GRPC_GENERATED_VERSION = .*?(?=^class |\Z)", "\n", text, count=1, flags=re.M | re.S)


if __name__ == "__main__":
    main()
