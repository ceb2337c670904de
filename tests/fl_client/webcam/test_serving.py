"""`fl-client webcam --serve`: the page on this machine alone, with the model that this device verified."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.errors import ConfigError, DeviceError, IntegrityError
from common.identity import PublicKey
from fl_client.webcam import serving
from fl_client.webcam.serving import LocalPage, VerifiedFiles, make_app, serve_page
from fl_server.hub import Registry
from models.manifest import CONTEXT
from models.web.site import HEADERS, CameraSite, File
from tests.publishing import KEY, OTHER_KEY, facts_of_round, publish, weights_of_round
from tests.tiny_model import tiny_onnx

pytestmark = pytest.mark.network


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    Registry(folder, KEY).publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def files(registry: Path, said: list[str]) -> VerifiedFiles:
    return VerifiedFiles(registry, KEY.public, said.append)


@pytest.fixture
def page(files: VerifiedFiles) -> Iterator[LocalPage]:
    page = LocalPage(make_app(files, CameraSite(server=False)), 0)
    page.start()
    yield page
    page.stop()


def ask(page: LocalPage, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    address = urlsplit(page.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_the_page_and_the_signed_model_are_there(page: LocalPage, registry: Path) -> None:
    assert ask(page, "/camera")[0] == 200
    assert ask(page, "/")[1]["location"] == "/camera"
    status, headers, _ = ask(page, "/models/latest/manifest.json")
    assert (status, headers["location"]) == (302, "/models/000001-r0001/manifest.json")
    manifest = ask(page, "/models/000001-r0001/manifest.json")[2]
    assert manifest == (registry / "versions" / "000001-r0001" / "manifest.json").read_bytes()
    key = PublicKey.from_pem(ask(page, "/models/publisher.pub")[2])
    assert key == KEY.public
    key.verify(CONTEXT, manifest, ask(page, "/models/000001-r0001/manifest.sig")[2])
    assert ask(page, "/models/000001-r0001/model.onnx")[2] == tiny_onnx(1)


@pytest.mark.parametrize(
    "path",
    [
        "/models/000001-r0001/model.safetensors",
        "/models/000002-r0001/model.onnx",
        "/models/latest/publisher.pub",
        "/models/..%2f..%2fpublisher.pub",
        "/camera/../../pyproject.toml",
        "/camera/site.py",
        "/v1/predict",
    ],
)
def test_nothing_else_is(page: LocalPage, path: str) -> None:
    status, headers, _ = ask(page, path)
    assert status == 404
    assert headers["content-security-policy"] == HEADERS["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_sent_to_it(page: LocalPage, method: str) -> None:
    for path in ("/camera", "/models/000001-r0001/model.onnx", "/models/publisher.pub"):
        assert ask(page, path, method)[0] == 405


def test_a_page_of_another_name_cannot_read_it(page: LocalPage) -> None:
    assert ask(page, "/camera", host="evil.example")[0] == 400
    assert ask(page, "/camera", host="localhost:8460")[0] == 200


def test_other_addresses_of_this_machine_find_no_one(page: LocalPage) -> None:
    port = urlsplit(page.address).port or 0
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


def test_other_accounts_silent_connections_do_not_keep_the_browser_out(page: LocalPage) -> None:
    with ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", urlsplit(page.address).port or 0), timeout=10))
        assert ask(page, "/camera")[0] == 200


def test_a_newer_version_is_given_out_and_one_of_another_key_is_not(
    files: VerifiedFiles, registry: Path, said: list[str]
) -> None:
    Registry(registry, KEY).publish(weights_of_round(2), tiny_onnx(2), facts_of_round(2))
    wait(files)
    assert files.read("model.onnx") == ("000002-r0002", File("model.onnx", tiny_onnx(2)))
    folder = publish(registry, 3).folder
    (folder / "manifest.sig").write_bytes(OTHER_KEY.sign(CONTEXT, (folder / "manifest.json").read_bytes()))
    for _ in range(2):
        wait(files)
        assert files.read("model.onnx") == ("000002-r0002", File("model.onnx", tiny_onnx(2)))
    assert len(said) == 1
    assert "stays in use" in said[0]


def test_a_model_that_is_not_signed_is_never_served(registry: Path) -> None:
    with pytest.raises(IntegrityError):
        VerifiedFiles(registry, OTHER_KEY.public, print)


def test_a_port_that_is_taken_is_a_sentence(page: LocalPage, files: VerifiedFiles) -> None:
    with pytest.raises(DeviceError, match="is taken; choose another --port"):
        LocalPage(make_app(files, CameraSite(server=False)), urlsplit(page.address).port or 0)


def test_it_says_where_it_is_and_is_gone_after_ctrl_c(registry: Path, said: list[str]) -> None:
    def visit() -> None:
        address = urlsplit(said[0].split(" is at ")[1].split(",")[0])
        with socket.create_connection((address.hostname or "", address.port or 0), 5):
            pass

    def interrupted() -> None:
        visit()
        raise KeyboardInterrupt

    serve_page(None, registry, KEY.public.fingerprint, 0, said.append, interrupted)
    assert said[0].startswith("The camera page is at http://127.0.0.1:")
    assert said[-1] == "The page is closed."
    with pytest.raises(ConnectionRefusedError):
        visit()


def test_without_a_model_it_says_what_to_give(said: list[str]) -> None:
    with pytest.raises(ConfigError, match="--serve shows a published model"):
        serve_page(None, None, None, 0, said.append)
    with pytest.raises(ConfigError, match="--serve shows a published model"):
        serve_page(Path("base"), None, None, 0, said.append)


def wait(files: VerifiedFiles, seconds: float = 2.0) -> None:
    """Let the clock of its looks go on."""
    before = files._lookout.now
    files._lookout.now = lambda: before() + seconds


def test_a_refused_version_is_verified_less_and_less_often_and_taken_once_it_is_good(
    registry: Path, files: VerifiedFiles, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    verify = serving.newer_than
    monkeypatch.setattr(serving, "newer_than", lambda model: looks.append("look") or verify(model))
    publish(registry, 2)
    path = registry / "versions" / "000002-r0002" / "model.onnx"
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"x" + content[1:])
    for _ in range(9):
        wait(files)
        assert (files.read("model.onnx") or ("",))[0] == "000001-r0001"
    assert (len(looks), len(said)) == (4, 1)
    path.write_bytes(content)
    wait(files, 60)
    assert (files.read("model.onnx") or ("",))[0] == "000002-r0002"
