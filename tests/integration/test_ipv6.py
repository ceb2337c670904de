"""Everything over IPv6: certificates, join codes, the three ports, and a device without a code on the same machine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.certificates import load_certificate, names_of
from common.join_code import parse_join_code
from tests.federation import CLIENT, SERVER, Federation, federation_in

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    if "00000000000000000000000000000001" not in Path("/proc/net/if_inet6").read_text():
        pytest.skip("This machine has no IPv6.")
    with federation_in(tmp_path) as found:
        found.host = "::1"
        yield found


def test_devices_join_train_and_follow_models_over_ipv6(federation: Federation) -> None:
    config = federation.folder / "fl.toml"
    config.write_text('[model]\nname = "mobilenet_v2_tiny_128"\nstem_stride = 2\n[train]\nlocal_steps = 1\n')
    federation.start_server("--rounds", "1", "--min-clients", "3", "--config", str(config))
    federation.until(federation.offered, 400)
    assert parse_join_code(federation.offered()).address == "::1"
    assert "::1" in names_of(load_certificate((federation.server_folder / "authority" / "server.pem").read_bytes()))

    federation.start_client("anna")  # same user, same machine: no code
    federation.until(lambda: "Member of ::1 as anna" in federation.said("anna"))
    invited = subprocess.run(
        [sys.executable, "-c", SERVER, "invite", "--dir", str(federation.server_folder)],
        env=federation.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert parse_join_code(invited.stdout).address == "::1"
    (federation.folder / "faces").mkdir()
    federation.enrol(["ben", "cleo"])
    for name in ("ben", "cleo"):
        federation.play(name)

    federation.until(lambda: f"Connected to [::1]:{federation.port} as anna" in federation.said("anna"), 400)
    federation.until(lambda: len(federation.records()) == 2, 400)
    assert federation.records()[1]["accepted"] == 3
    kept = federation.folder / "anna" / ".emofl" / "registry" / "versions"
    federation.until(lambda: len(list(kept.iterdir())) >= 1 and "000002" in " ".join(path.name for path in kept.iterdir()))
    assert "Traceback" not in federation.said("anna") + federation.said("server")


def test_a_code_for_an_ipv6_address_joins_from_elsewhere(federation: Federation) -> None:
    federation.start_server("--rounds", "1", "--min-clients", "5", "--model", "mobilenet_v2_tiny_128")
    federation.until(federation.offered, 400)
    code, elsewhere = federation.offered(), {"XDG_RUNTIME_DIR": str(federation.folder / "elsewhere")}
    from simulation.drawn_folder import draw_folder

    draw_folder(federation.folder / "dora", 14, people=1, seed=1)
    federation.run(CLIENT, "--data", str(federation.folder / "dora"), "--join", code, log="dora", **elsewhere)
    federation.until(lambda: "Member of ::1" in federation.said("dora"), 200)
    federation.until(lambda: f"Connected to [::1]:{federation.port}" in federation.said("dora"), 200)
