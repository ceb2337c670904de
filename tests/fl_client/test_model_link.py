import threading
import time
from collections.abc import Callable

import pytest

from common.device_api.refusals import DeviceRevoked, DeviceUnknown
from common.errors import ConfigError
from fl_client.enrolment import enrol
from fl_client.model_link import ModelLink, Patience
from fl_client.webcam.registry import RegistrySource
from fl_server.device_api import Limits
from fl_server.model_board import ModelBoard
from models.manifest import ONNX
from models.published import open_published
from tests.membership import serving
from tests.publishing import KEY, OTHER_KEY, onnx_of_round, publish

pytestmark = pytest.mark.network
QUICK = Limits(look_seconds=0.05)
SOON = Patience(first=0.05, longest=0.2, connect=2.0)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path / "server", limits=QUICK) as running:
        yield running


@pytest.fixture
def member(server, tmp_path):
    return enrol(server.code(), tmp_path / "home", "laptop")


@pytest.fixture
def link(member, tmp_path):
    said: list[str] = []
    found = ModelLink(member, tmp_path / "local", say=said.append, patience=SOON)
    found.sentences = said
    yield found
    found.stop()


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def newest(link) -> int:
    try:
        return open_published(link.registry, KEY.public).manifest.sequence
    except Exception:
        return 0


def test_the_newest_model_is_here_and_each_new_one_follows(server, link):
    publish(server.folder.registry, 1)
    link.start()
    until(lambda: newest(link) == 1)
    publish(server.folder.registry, 2)
    until(lambda: newest(link) == 2)
    assert open_published(link.registry, KEY.public).onnx_bytes() == onnx_of_round(2)
    until(lambda: link.sentences == ["Model 000001-r0001 has arrived.", "Model 000002-r0002 has arrived."])


def test_the_camera_loop_picks_the_new_model_up(server, link):
    publish(server.folder.registry, 1)
    link.start()
    until(lambda: newest(link) == 1)
    source = RegistrySource(link.registry)
    assert "round 1" in source.newest().version
    assert source.newer() is None
    publish(server.folder.registry, 2)
    until(lambda: newest(link) == 2)
    assert "round 2" in source.newer().version


def test_after_a_break_it_connects_again_and_catches_up(server, link, tmp_path):
    publish(server.folder.registry, 1)
    link.start()
    until(lambda: newest(link) == 1)
    ports = server.api.enrol_port, server.api.device_port
    server.api.stop(0)
    publish(server.folder.registry, 2)
    until(lambda: any("cannot be reached" in sentence for sentence in link.sentences))
    with serving(tmp_path / "server", limits=QUICK, ports=ports):
        until(lambda: newest(link) == 2)
        assert sum("cannot be reached" in sentence for sentence in link.sentences) == 1


def test_a_broken_download_resumes_at_its_offset(server, link, monkeypatch):
    published = publish(server.folder.registry, 1)
    content = (published.folder / ONNX).read_bytes()
    asked = []
    whole = ModelBoard.read

    def breaking(self, member, request):
        asked.append((request.file, request.offset))
        for chunk in whole(self, member, request):
            if len(asked) == 1:
                chunk.data = chunk.data[:10]
                yield chunk
                raise ConnectionError("the line went dead")
            yield chunk

    monkeypatch.setattr(ModelBoard, "read", breaking)
    link.start()
    until(lambda: newest(link) == 1)
    assert asked[:2] == [(ONNX, 0), (ONNX, 10)]
    assert open_published(link.registry, KEY.public).onnx_bytes() == content


def test_a_server_that_sends_other_bytes_than_were_signed_is_not_believed(server, link):
    published = publish(server.folder.registry, 1)
    (published.folder / ONNX).write_bytes(b"x" * len(onnx_of_round(1)))
    link.start()
    until(lambda: any("altered" in sentence for sentence in link.sentences))
    assert newest(link) == 0
    (published.folder / ONNX).write_bytes(onnx_of_round(1))
    until(lambda: newest(link) == 1)


def test_a_revoked_device_stops_following(server, member, link):
    publish(server.folder.registry, 1)
    link.start()
    until(lambda: newest(link) == 1)
    server.members.roster.revoke(member.device_name)
    until(lambda: link.failure is not None)
    assert isinstance(link.failure, DeviceRevoked)
    publish(server.folder.registry, 2)
    with pytest.raises(DeviceRevoked):
        link.follow(threading.Event())
    assert newest(link) == 1


def test_a_device_that_the_server_forgot_stops_following(server, link):
    server.members.roster.path.unlink()
    with pytest.raises(DeviceUnknown):
        link.follow(threading.Event())


def test_another_publishers_folder_is_not_touched(member, tmp_path):
    publish(tmp_path / "local", 1, key=OTHER_KEY)
    with pytest.raises(ConfigError, match="another publisher"):
        ModelLink(member, tmp_path / "local").follow(threading.Event())


@pytest.mark.parametrize("running", [True, False])
def test_a_link_stops_soon_with_a_server_and_without(server, link, running):
    if not running:
        server.api.stop(0)
    link.start()
    time.sleep(0.3)
    thread = link._thread
    link.stop()
    assert not thread.is_alive()
    assert link.failure is None


def test_a_full_disk_is_told_and_waited_for(server, link, monkeypatch):
    publish(server.folder.registry, 1)
    full = threading.Event()
    full.set()
    from fl_client import mirror

    accept = mirror.Mirror.accept

    def failing(self, announced):
        if full.is_set():
            raise OSError(28, "No space left on device")
        accept(self, announced)

    monkeypatch.setattr(mirror.Mirror, "accept", failing)
    link.start()
    until(lambda: any("No space left" in sentence for sentence in link.sentences))
    full.clear()
    until(lambda: newest(link) == 1)


def test_a_version_that_does_not_fit_into_memory_is_refused_once_and_the_next_one_taken(server, link, monkeypatch):
    from models import published as reading

    tries = []
    whole = reading.read_plain

    def full(path, limit):
        if path.name == ONNX and ".partial" in path.parts:
            tries.append(path)
            raise MemoryError
        return whole(path, limit)

    publish(server.folder.registry, 1)
    monkeypatch.setattr(reading, "read_plain", full)
    link.start()
    until(lambda: any("too little free memory to read it" in sentence for sentence in link.sentences))
    time.sleep(0.5)
    assert len(tries) == 1
    assert link._thread.is_alive()
    monkeypatch.undo()
    publish(server.folder.registry, 2)
    until(lambda: newest(link) == 2)


def test_memory_that_is_short_anywhere_else_is_told_and_waited_for(server, link, monkeypatch):
    from fl_client import mirror

    short = threading.Event()
    short.set()
    verify = mirror.Mirror.verify

    def failing(self, *notice):
        if short.is_set():
            raise MemoryError
        return verify(self, *notice)

    monkeypatch.setattr(mirror.Mirror, "verify", failing)
    publish(server.folder.registry, 1)
    link.start()
    until(lambda: any("too little free memory; trying again" in sentence for sentence in link.sentences))
    short.clear()
    until(lambda: newest(link) == 1)
