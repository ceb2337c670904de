"""What each port of a running server answers to whom, asked; docs/security.md shows what was found."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.join_code import parse_join_code
from fl_client.membership import load_membership
from fl_server.roster import Roster
from fl_server.server_folder import ServerFolder
from fl_server.service import ADMIN
from tests.federation import Federation, federation_in
from tests.probing import DEVICES, ENROL, HTTPS, INSIDE, Target, listening, table

pytestmark = [pytest.mark.slow, pytest.mark.network]

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as found:
        yield found


def target(federation: Federation) -> Target:
    """A server with two devices, one of them revoked, and a join code that is open."""
    server = federation.start_server("--rounds", "1", "--min-clients", "5", "--model", "mobilenet_v2_tiny_128")
    federation.until(federation.offered, 400)
    used = parse_join_code(federation.offered()).token
    federation.enrol(["anna", "ben"])
    federation.until(lambda: (federation.server_folder / "registry" / "LATEST").exists(), 400)
    Roster(ServerFolder(federation.server_folder).roster, lambda: datetime.now(UTC)).revoke("ben")
    federation.until(lambda: "ben is revoked" in federation.said("server"))
    known = dict(zip((HTTPS, ENROL, DEVICES), range(federation.port, federation.port + 3), strict=True))
    others = listening(server.pid) - set(known.values())
    assert len(others) == 1, f"the server listens on other ports than it says: {others}"
    anna, ben = (load_membership(federation.folder / name / ".emofl") for name in ("anna", "ben"))
    return Target(
        ports=known | {INSIDE: others.pop()},
        member=anna,
        revoked=ben,
        node=federation.nodes()["anna"] % 2**64,
        admin=(federation.server_folder / ADMIN).read_text().strip(),
        unused=bytes.fromhex(parse_join_code(federation.offered()).token),
        used=bytes.fromhex(used),
    )


def test_every_port_answers_as_the_documentation_says_and_there_is_no_other_port(federation: Federation) -> None:
    found = table(target(federation))
    (federation.folder / "found.md").write_text(found)
    assert found in SECURITY.read_text(), f"docs/security.md should hold this table:\n{found}"
    assert "Traceback" not in federation.said("server") + (federation.server_folder / "server.log").read_text()
