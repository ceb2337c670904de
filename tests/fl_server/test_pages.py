"""The pages for people: what they show, what they never show, and that nothing but published files can be reached."""

import asyncio
import gzip
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from common.canonical import encode, sha256
from common.certificates import CertificateAuthority, certificate_pem, fingerprint
from common.config import make_config
from common.identity import grouped
from fl_server.gate import Gate
from fl_server.http_server import HttpServer, listen
from fl_server.hub import Registry
from fl_server.pages import Pages
from fl_server.run_folder import METRICS, RunFolder
from fl_server.server_folder import Endpoint, ServerFolder
from fl_server.server_lock import write_status
from fl_server.superlink import SuperLink
from fl_server.web.downloads import CHUNK, Limits
from fl_server.web.plot import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, WIDTH, Point, draw, thin
from models.manifest import PrivacyStatement
from models.web.site import HEADERS
from tests.deployed import ADMIN, Deployed, ask, write_identity
from tests.publishing import KEY, OTHER_KEY, facts_of_round, onnx_of_round, publish, weights_of_round

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
AUTHORITY = CertificateAuthority.create(NOW)
FILES = ("manifest.json", "manifest.sig", "model.onnx", "model.safetensors")


def record(number: int) -> dict[str, object]:
    return {
        "round": number,
        "asked": 9,
        "accepted": 8 if number else 0,
        "left_out": {"budget-spent": 1},
        "update_norm": 0.731,
        "seconds": 12.3,
        "accuracy": 0.125 + number / 8,
        "balanced_accuracy": 0.125 + number / 8,
        "loss": 1.9,
        "evaluated_on": 3589,
    }


@dataclass
class Browser:
    """Asks the pages without a network, and follows no redirect."""

    pages: Pages

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.pages), base_url="https://testserver") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(ask())


@dataclass
class Site:
    """A server's folder as a run of three rounds leaves it, and its pages."""

    folder: ServerFolder
    run: RunFolder

    @property
    def pages(self) -> Pages:
        return Pages(self.folder, KEY.public, certificate_pem(AUTHORITY.certificate))

    @property
    def client(self) -> Browser:
        return Browser(self.pages)


def make_site(path: Path, **config: object) -> Site:
    folder = ServerFolder.prepare(path / "server")
    folder.write_endpoint(Endpoint(address="fl.example", fleet_port=8443, enrol_port=8444, device_port=8445))
    values = {"model": {"name": "mobilenet_v2_tiny"}, "server": {"rounds": 5}, "data": {"clients": 1000}}
    run = RunFolder.create(folder.path, make_config(values | config), NOW)
    (run.path / METRICS).write_bytes(b"".join(encode(record(number)) for number in range(4)))
    status = {
        "state": "running",
        "online": ["annas-phone"],
        "address": "fl.example",
        "port": 8443,
        "run": run.name,
        "time": "now",
    }
    write_status(folder.path, status)
    folder.roster.write_text('{"devices":[{"name":"annas-phone"}]}')
    return Site(folder, run)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_site(tmp_path_factory.mktemp("original"))
    for number in range(3):
        publish(site.folder.registry, number)
    return site


@pytest.fixture
def site(original: Site, tmp_path: Path) -> Site:
    folder = ServerFolder(shutil.copytree(original.folder.path, tmp_path / "server"))
    return Site(folder, RunFolder(folder.path / "runs" / original.run.name))


def test_the_first_page_says_how_far_the_run_is_and_how_to_join(site: Site) -> None:
    page = site.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for words in (
        "fl.example:8443",
        "Round 3 of 5",
        "50.0 %",
        "3,589 public faces",
        "7.90",
        "000003-r0002",
        sha256(onnx_of_round(2)),
        grouped(KEY.public.fingerprint),
        grouped(fingerprint(AUTHORITY.certificate)),
        "fl-client --data ./my_faces --join CODE",
        "Differentially private for one face on a device",
        "<svg",
    ):
        assert words in page.text, words
    assert "NOT PRIVATE" not in page.text


def test_of_devices_no_page_says_more_than_how_many_were_in_the_last_round(site: Site) -> None:
    for path in ("/", "/models/", "/status.json"):
        text = site.client.get(path).text
        for secret in ("annas-phone", "budget-spent", "left_out", "update_norm", "0.731", "online", str(site.folder.path)):
            assert secret not in text, (path, secret)
    assert site.client.get("/status.json").json()["last_round"] == {
        "round": 3,
        "devices": 8,
        "accuracy": 0.5,
        "balanced_accuracy": 0.5,
    }


def test_programs_get_the_same_as_json(site: Site) -> None:
    said = site.client.get("/status.json").json()
    assert (said["state"], said["round"], said["rounds"]) == ("running", 3, 5)
    assert said["model"]["version"] == "000003-r0002"
    assert said["model"]["files"]["model.onnx"]["sha256"] == sha256(onnx_of_round(2))
    assert said["model"]["epsilon"] == 7.9


@pytest.mark.parametrize("name", FILES)
def test_a_versions_files_come_as_they_were_published(site: Site, name: str) -> None:
    content = (site.folder.registry / "versions" / "000002-r0001" / name).read_bytes()
    answer = site.client.get(f"/models/000002-r0001/{name}")
    assert answer.content == content
    assert answer.headers["etag"] == f'"{sha256(content)}"'
    assert answer.headers["content-length"] == str(len(content))
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == ("application/json" if name == "manifest.json" else "application/octet-stream")
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}', "*"):
        again = site.client.get(f"/models/000002-r0001/{name}", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert site.client.get(f"/models/000002-r0001/{name}", headers={"if-none-match": '"other"'}).content == content
    head = site.client.get(f"/models/000002-r0001/{name}", method="HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))


def test_the_newest_version_has_a_fixed_address(site: Site) -> None:
    answer = site.client.get("/models/latest/model.onnx")
    assert (answer.status_code, answer.headers["location"]) == (302, "/models/000003-r0002/model.onnx")
    assert site.client.get("/models/latest/LATEST").status_code == 404


def test_certificate_key_health_and_style_are_there(site: Site) -> None:
    assert site.client.get("/ca.pem").content == certificate_pem(AUTHORITY.certificate)
    assert site.client.get("/models/publisher.pub").content == KEY.public.pem()
    assert site.client.get("/healthz").text == "ok\n"
    style = site.client.get("/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert site.client.get("/style.css", headers={"if-none-match": style.headers["etag"]}).status_code == 304


def raw(pages: Pages, path: str, method: str = "GET") -> int:
    """The status of a request whose path no client library has tidied up."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    asyncio.run(pages(scope | {"client": ("192.0.2.1", 1), "root_path": "", "scheme": "https"}, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path",
    [
        "/models/../devices.json",
        "/models/../../devices.json",
        "/models/000001-r0000/../../../devices.json",
        "/models/000001-r0000/..",
        "/models/000001-r0000/.",
        "/models/000001-r0000/",
        "/models/000001-r0000/model.onnx/",
        "/models/000001-r0000/model.onnx\x00",
        "/models/000001-r0000//model.onnx",
        "/models//model.onnx",
        "/models/./model.onnx",
        "/models/../publisher.key",
        "/models/%2e%2e/publisher.key",
        "/models/..\\..\\publisher.key/model.onnx",
        "/models/versions/000001-r0000/model.onnx",
        "/models/\u0660\u0660\u0660\u0660\u0660\u0661-r0000/model.onnx",
        "/models/999999-r0000/model.onnx",
        "/models/000001-r0000/LATEST",
        "/models/LATEST",
        "/publisher.key",
        "/authority/ca.key",
        "/admin.token",
        "/state.db",
        "/devices.json",
        "/index.html",
        "/web/index.html",
        "//etc/passwd",
        "/../../etc/passwd",
        "/style.css/",
        "/ca.pem/..",
        "/docs",
        "/openapi.json",
        "/v1/control/start-run",
        "",
    ],
)
def test_nothing_but_what_is_published_can_be_reached(site: Site, path: str) -> None:
    site.folder.publisher_key.write_text("secret")
    assert raw(site.pages, path) == 404


def test_a_link_in_a_versions_place_is_not_followed(site: Site) -> None:
    versions = site.folder.registry / "versions"
    outside = site.folder.path / "outside"
    (versions / "000001-r0000").rename(outside)
    (versions / "000001-r0000").symlink_to(outside)
    assert site.client.get("/models/000001-r0000/model.onnx").status_code == 404
    model = versions / "000002-r0001" / "model.onnx"
    model.rename(site.folder.path / "elsewhere")
    model.symlink_to(site.folder.path / "elsewhere")
    assert site.client.get("/models/000002-r0001/model.onnx").status_code == 404


def test_an_altered_file_is_not_given_out_also_after_it_was_good(site: Site) -> None:
    client, model = site.client, site.folder.registry / "versions" / "000003-r0002" / "model.onnx"
    assert client.get("/models/000003-r0002/model.onnx").status_code == 200
    content = bytearray(model.read_bytes())
    content[0] ^= 1
    model.write_bytes(bytes(content))
    assert client.get("/models/000003-r0002/model.onnx").status_code == 404


def test_a_version_that_another_key_signed_is_neither_shown_nor_given_out(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    publish(site.folder.registry, 1, key=OTHER_KEY)
    assert "000001-r0001" not in site.client.get("/models/").text
    assert site.client.get("/status.json").json()["model"] is None
    assert site.client.get("/models/000001-r0001/model.onnx").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_only_reading_is_answered(site: Site, method: str) -> None:
    for path in ("/", "/status.json", "/models/000003-r0002/model.onnx"):
        assert raw(site.pages, path, method) == 405


@pytest.mark.parametrize("path", ["/", "/models/", "/status.json", "/models/000003-r0002/model.onnx", "/ca.pem", "/nothing"])
def test_every_answer_carries_the_headers_that_keep_browsers_safe(site: Site, path: str) -> None:
    headers = site.client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "script" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers
    assert "set-cookie" not in headers
    assert "server" not in headers


class Elements(HTMLParser):
    """Collects a page's elements, and complains about what the policy would block or what is left open."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    @property
    def addresses(self) -> Iterator[str]:
        for _, attributes in self.found:
            yield from (value or "" for name, value in attributes.items() if name in ("href", "src"))


@pytest.mark.parametrize("path", ["/", "/models/", "/nothing"])
def test_pages_are_whole_have_no_scripts_and_load_nothing_from_elsewhere(site: Site, path: str) -> None:
    parser = Elements()
    parser.feed(site.client.get(path).text)
    assert parser.open == []
    assert not {tag for tag, _ in parser.found} & {"script", "style", "iframe", "form", "object", "embed"}
    for _, attributes in parser.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in parser.addresses)


def test_pages_can_be_used_with_a_keyboard_and_a_screen_reader(site: Site) -> None:
    parser = Elements()
    parser.feed(site.client.get("/").text)
    tags = [tag for tag, _ in parser.found]
    names = {attributes["id"] for _, attributes in parser.found if "id" in attributes}
    assert ("html", {"lang": "en"}) in parser.found
    assert tags.count("h1") == 1
    assert tags.count("main") == 1
    for tag, attributes in parser.found:
        if tag == "svg":
            assert attributes["role"] == "img"
        for word in (attributes.get("aria-labelledby") or "").split():
            assert word in names
        if tag == "img":
            assert "alt" in attributes
        if tag == "th":
            assert "scope" in attributes
        if attributes.get("class") == "wide":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]


def test_every_address_on_the_pages_is_answered(site: Site) -> None:
    client = site.client
    seen = set()
    for path in ("/", "/models/"):
        parser = Elements()
        parser.feed(client.get(path).text)
        seen |= {address.split("#")[0] for address in parser.addresses} - {""}
    assert len(seen) > 15
    assert {
        address: client.get(address).status_code for address in seen if client.get(address).status_code not in (200, 302)
    } == {}


def test_what_a_folder_says_is_text_and_no_markup(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.folder.write_endpoint(
        Endpoint(address="<script>alert(1)</script>", fleet_port=8443, enrol_port=8444, device_port=8445),
    )
    page = site.client.get("/").text
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;:8443" in page


def test_training_without_privacy_is_said_first(tmp_path: Path) -> None:
    site = make_site(tmp_path, privacy={"private": False})
    facts = facts_of_round(1, privacy=PrivacyStatement.absent("everything"))
    Registry(site.folder.registry, KEY).publish(weights_of_round(1), onnx_of_round(1), facts)
    page = site.client.get("/").text
    assert page.index("NOT PRIVATE") < page.index("Progress")
    assert "an update without noise" not in page
    assert "not private" in site.client.get("/models/").text


def test_a_promise_for_devices_is_shown_as_one(tmp_path: Path) -> None:
    site = make_site(tmp_path, privacy={"private": False}, client_level={"mode": "central", "epsilon": 3.0})
    page = site.client.get("/").text
    assert "NOT PRIVATE" not in page
    assert "for all faces of a device" in page
    assert "adds noise" not in page
    promise = PrivacyStatement.guaranteed(
        unit="client", epsilon=2.5, delta=1e-5, accountant="rdp", clipping_norm=1.0, noise_source="the server"
    )
    facts = facts_of_round(1, client_privacy=promise)
    Registry(site.folder.registry, KEY).publish(weights_of_round(1), onnx_of_round(1), facts)
    page = site.client.get("/").text
    assert "for all faces of one device: epsilon is at most 2.50" in page
    assert "for one face on a device: epsilon is at most 7.90" in page


@pytest.mark.parametrize("secure", [False, True])
def test_what_the_server_sees_depends_on_how_updates_travel(tmp_path: Path, secure: bool) -> None:
    page = make_site(tmp_path, upload={"secure": secure}).client.get("/").text
    assert ("the sum of a whole cohort" in page) == secure
    assert ("each device&#39;s update" in page or "each device's update" in page) != secure


def test_a_server_without_a_run_or_a_model_has_pages(tmp_path: Path) -> None:
    site = Site(ServerFolder.prepare(tmp_path), RunFolder(tmp_path))
    assert "No run has begun" in site.client.get("/").text
    assert "Nothing is published yet" in site.client.get("/models/").text
    assert site.client.get("/models/latest/model.onnx").status_code == 404
    assert site.client.get("/status.json").json() == {
        "state": "no-run",
        "round": None,
        "rounds": None,
        "last_round": None,
        "model": None,
    }


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"null\n", b'{"round":"x"}\n', b'{"accepted":[],"round":1}\n'])
def test_a_damaged_record_is_said_and_hides_nothing_else(site: Site, damage: bytes) -> None:
    (site.run.path / METRICS).write_bytes(damage)
    page = site.client.get("/").text
    assert "cannot be read at the moment" in page
    assert "000003-r0002" in page


def test_a_registry_that_lost_its_newest_version_shows_none(site: Site) -> None:
    (site.folder.registry / "LATEST").write_text("000009-r0009\n")
    page = site.client.get("/models/").text
    assert "models cannot be read at the moment" in page
    assert "000003-r0002" not in page


def test_a_version_that_is_not_the_latest_yet_is_not_listed(site: Site) -> None:
    (site.folder.registry / "LATEST").write_text("000002-r0001\n")
    assert "000003-r0002" not in site.client.get("/models/").text


def test_many_visitors_cost_one_look_a_second(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("fl_server.pages.time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    pages = site.pages
    looks: list[float] = []
    read = pages._reader.read
    monkeypatch.setattr(pages._reader, "read", lambda: (looks.append(clock[0]), read())[1])
    client = Browser(pages)
    for _ in range(20):
        assert client.get("/").status_code == client.get("/models/").status_code == client.get("/status.json").status_code == 200
    assert looks == [100.0]
    (site.run.path / METRICS).write_bytes(encode(record(0)))
    clock[0] += 1.1
    assert "Round 0 of 5" in client.get("/").text
    assert looks == [100.0, 101.1]


def test_an_unexpected_fault_is_answered_and_logged_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pages = site.pages
    monkeypatch.setattr(pages._reader, "read", lambda: 1 / 0)
    client = Browser(pages)
    for _ in range(3):
        answer = client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "division" not in answer.text
    assert len(caplog.records) == 1
    assert client.get("/healthz").status_code == 200


@pytest.mark.network
@pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
def test_on_the_networks_port_people_get_pages_and_no_way_to_flower(site: Site, tmp_path: Path) -> None:
    link = SuperLink(tmp_path / "state" / "state.db", write_identity(tmp_path), "127.0.0.1", 0, ADMIN, pages=site.pages)
    link.start()
    try:
        deployed = Deployed(tmp_path, link)
        assert ask(deployed, "GET", "/")[0] == 200
        assert ask(deployed, "HEAD", "/") == (200, b"")
        assert json.loads(ask(deployed, "GET", "/status.json")[1])["state"] == "running"
        assert ask(deployed, "GET", "/models/000003-r0002/model.onnx") == (200, onnx_of_round(2))
        for method, path in (("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/"), ("GET", "/v1/fleet/pull-messages")):
            assert ask(deployed, method, path)[0] == 404
        assert ask(deployed, "GET", "/", inside=True)[0] == 404
    finally:
        link.stop()


@pytest.mark.network
def test_who_takes_a_download_slowly_is_hung_up_on_and_one_address_has_few(site: Site) -> None:
    big = {"big": np.zeros(4_000_000, dtype=np.float32)}
    Registry(site.folder.registry, KEY).publish(big, onnx_of_round(3), facts_of_round(3))
    pages = Pages(site.folder, KEY.public, certificate_pem(AUTHORITY.certificate), Limits(3, 2, chunk_seconds=0.5))
    server = HttpServer(Gate(Starlette(), {}, lambda path, headers: None, pages=pages), listen("127.0.0.1", 0), None)
    server.start()

    def ask_for(name: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(f"GET {name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return connection

    def status_of(name: str) -> int:
        with ask_for(name) as connection:
            return int(connection.recv(12)[-3:])

    try:
        slow = [ask_for("/models/000004-r0003/model.safetensors") for _ in range(2)]
        assert all(connection.recv(12).endswith(b"200") for connection in slow)
        assert status_of("/models/000004-r0003/model.onnx") == 503
        assert status_of("/") == 200
        end = time.monotonic() + 10
        while status_of("/models/000004-r0003/model.onnx") != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        for connection in slow:
            with connection:
                got = 0
                while data := connection.recv(1 << 20):
                    got += len(data)
                assert got < 16_000_000
    finally:
        server.stop()


async def left_unread(pages: Pages, path: str, address: str, read: asyncio.Event) -> tuple[int, list[int]]:
    """Asks for a file and takes its first piece alone until `read`: status, and the sizes of what came."""
    status, sizes = 0, list[int]()

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            return
        if sizes and status == 200:  # as uvicorn: the first piece fills what a connection may hold
            await read.wait()
        sizes.append(len(message["body"]))

    headers = [(b"accept-encoding", b"gzip, br")]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b"", "client": (address, 1)}
    await pages(scope, receive, send)
    return status, sizes


@pytest.mark.parametrize(
    "path",
    ["/camera/runtime/ort-wasm-simd-threaded.wasm", "/camera/detector.onnx", "/models/000003-r0002/model.onnx"],
)
def test_large_files_are_sent_in_chunks_and_one_address_takes_few_at_a_time(site: Site, path: str) -> None:
    pages = Pages(site.folder, KEY.public, certificate_pem(AUTHORITY.certificate), Limits(3, 2, patience=0.2))

    async def crowd() -> None:
        read = asyncio.Event()
        slow = [asyncio.create_task(left_unread(pages, path, "192.0.2.1", read)) for _ in range(2)]
        while pages._seats._held["192.0.2.1"] < 2:
            await asyncio.sleep(0.01)
        done = asyncio.Event()
        done.set()
        assert (await left_unread(pages, path, "192.0.2.1", done))[0] == 503
        assert (await left_unread(pages, path, "192.0.2.2", done))[0] == 200
        assert (await left_unread(pages, "/camera", "192.0.2.1", done))[0] == 200
        read.set()
        for status, sizes in await asyncio.gather(*slow):
            assert status == 200
            assert max(sizes) <= CHUNK
            assert sizes[-1] == 0
        assert (await left_unread(pages, path, "192.0.2.1", done))[0] == 200
        assert not pages._seats._held

    asyncio.run(asyncio.wait_for(crowd(), 60))


def test_the_camera_page_waits_for_a_place_among_the_downloads(site: Site) -> None:
    pages = Pages(site.folder, KEY.public, certificate_pem(AUTHORITY.certificate), Limits(1, 1, patience=30))
    path = "/camera/runtime/ort-wasm-simd-threaded.wasm"

    async def crowd() -> list[int]:
        read = asyncio.Event()
        everybody = [asyncio.create_task(left_unread(pages, path, "192.0.2.1", read)) for _ in range(4)]
        await asyncio.sleep(0.3)
        read.set()
        return [status for status, _ in await asyncio.gather(*everybody)]

    assert asyncio.run(asyncio.wait_for(crowd(), 60)) == [200] * 4


def test_the_plot_keeps_first_and_last_of_many_points_and_stays_small() -> None:
    points = [Point(number, 5, number / 20_000, None) for number in range(10_001)]
    assert [point.round for point in thin(points)][:: MOST_POINTS - 1] == [0, 10_000]
    drawing = draw(points, 10_000, classes=7)
    assert drawing is not None
    assert len(drawing) < 10_000


def test_the_plot_puts_accuracies_where_they_belong() -> None:
    drawing = draw([Point(0, 0, 0.0, None), Point(1, 3, 0.5, None)], rounds=2, classes=2)
    assert drawing is not None
    first, second = [tuple(map(float, pair.split(","))) for pair in re.findall(r'points="([^"]+)"', drawing)[0].split()]
    assert first == (LEFT, HEIGHT - BOTTOM)
    assert second[0] == (LEFT + WIDTH - RIGHT) / 2
    grid = dict(re.findall(r'y="([\d.]+)" text-anchor="end">(\d+%)', drawing))
    assert grid[f"{second[1] + 4:.1f}"] == "50%"


def test_a_run_that_was_never_evaluated_has_no_plot() -> None:
    assert draw([Point(0, 0, None, None)], 3, 7) is None


def test_the_camera_page_is_linked_and_has_rules_of_its_own(site: Site) -> None:
    client = site.client
    assert 'href="/camera"' in client.get("/").text
    page = client.get("/camera")
    assert page.status_code == 200
    assert page.headers.get_list("content-security-policy") == [HEADERS["content-security-policy"]]
    assert page.headers.get_list("permissions-policy") == ["camera=(self), geolocation=(), microphone=()"]
    assert client.get("/").headers["permissions-policy"].startswith("camera=()")


def test_the_newest_onnx_file_is_compressed_once_for_browsers_and_others_get_it_as_it_was_signed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    compress = gzip.compress
    monkeypatch.setattr("fl_server.pages.gzip.compress", lambda *args, **kwargs: (done.append(1), compress(*args, **kwargs))[1])
    pages = site.pages

    def raw_onnx(version: str, coding: str) -> httpx.Response:
        return Browser(pages).get(f"/models/{version}/model.onnx", headers={"accept-encoding": coding})

    newest, older = "000003-r0002", "000002-r0001"
    for _ in range(2):
        packed = raw_onnx(newest, "gzip, br")
        assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
        assert packed.content == onnx_of_round(2)
    plain = raw_onnx(newest, "identity")
    assert "content-encoding" not in plain.headers
    assert plain.content == onnx_of_round(2)
    assert plain.headers["etag"] != packed.headers["etag"]
    assert "content-encoding" not in raw_onnx(older, "gzip").headers
    assert len(done) == 1
