import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.certificates import CertificateAuthority, certificate_pem, key_pem, new_key
from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc
from common.device_api.refusals import REASON
from common.errors import DependencyError, RunError
from fl_client.enrolment import enrol
from fl_server.device_api import Limits
from fl_server.device_ports import accepts_old_tls
from models.manifest import ONNX, SAFETENSORS
from tests.membership import Clock, serving
from tests.publishing import OTHER_KEY, onnx_of_round, publish

pytestmark = pytest.mark.network
WAIT = 10.0


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path / "server", limits=Limits(look_seconds=0.05)) as running:
        yield running


@pytest.fixture
def member(server, tmp_path):
    return enrol(server.code(), tmp_path / "device", "laptop")


@contextmanager
def channel(server, port, key=None, chain=None):
    credentials = grpc.ssl_channel_credentials(server.members.authority.ca_pem, key, chain)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as found:
        yield found


@pytest.fixture
def models(server, member):
    with grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", member.channel_credentials()) as found:
        yield rpc.ModelsStub(found)


def reason(error):
    return dict(error.value.trailing_metadata() or ()).get(REASON)


def fetch(models, version, file=ONNX, offset=0):
    chunks = list(models.FetchModel(pb.FetchModelRequest(version=version, file=file, offset=offset), timeout=WAIT))
    return b"".join(chunk.data for chunk in chunks)


def test_a_watcher_hears_the_newest_version_at_once_and_then_each_new_one(server, models):
    publish(server.folder.registry, 1)
    stream = models.WatchModels(pb.WatchModelsRequest(), timeout=WAIT)
    assert next(stream).version == "000001-r0001"
    publish(server.folder.registry, 2)
    assert next(stream).version == "000002-r0002"
    publish(server.folder.registry, 3)
    assert next(stream).version == "000003-r0003"


def test_a_watcher_who_has_the_newest_hears_the_next_one_only(server, models):
    publish(server.folder.registry, 1)
    stream = models.WatchModels(pb.WatchModelsRequest(after_sequence=1), timeout=WAIT)
    publish(server.folder.registry, 2)
    assert next(stream).version == "000002-r0002"


def test_a_notice_carries_the_stored_manifest_and_its_signature(server, models):
    published = publish(server.folder.registry, 1)
    notice = next(models.WatchModels(pb.WatchModelsRequest(), timeout=WAIT))
    assert notice.manifest == (published.folder / "manifest.json").read_bytes()
    assert notice.signature == (published.folder / "manifest.sig").read_bytes()


def test_nobody_hears_of_a_version_that_the_publisher_did_not_sign(server, models):
    publish(server.folder.registry, 1, key=OTHER_KEY)
    with pytest.raises(grpc.RpcError) as error:
        next(models.WatchModels(pb.WatchModelsRequest(), timeout=0.6))
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("offset", [0, 1, 20])
def test_a_file_comes_from_the_offset_to_its_end(server, models, offset):
    publish(server.folder.registry, 1)
    assert fetch(models, "000001-r0001", ONNX, offset) == onnx_of_round(1)[offset:]


def test_a_long_file_comes_in_small_chunks_that_join_up(server, models):
    published = publish(server.folder.registry, 1)
    content = bytes(range(256)) * 1000
    (published.folder / ONNX).write_bytes(content)
    request = pb.FetchModelRequest(version=published.name, file=ONNX, offset=100)
    place = 100
    for chunk in models.FetchModel(request, timeout=WAIT):
        assert chunk.offset == place
        assert 1 <= len(chunk.data) <= 65536
        assert chunk.data == content[place : place + len(chunk.data)]
        place += len(chunk.data)
    assert place == len(content)


def test_an_offset_behind_the_end_is_told_from_one_at_the_end(server, models):
    publish(server.folder.registry, 1)
    size = len(onnx_of_round(1))
    assert fetch(models, "000001-r0001", ONNX, size) == b""
    with pytest.raises(grpc.RpcError) as error:
        fetch(models, "000001-r0001", ONNX, size + 1)
    assert (error.value.code(), reason(error)) == (grpc.StatusCode.OUT_OF_RANGE, "offset-too-large")


@pytest.mark.parametrize(
    ("version", "file"),
    [
        ("000009-r0009", ONNX),
        ("../../authority", "ca.key"),
        ("000001-r0001", "../../../authority/ca.key"),
        ("000001-r0001", "manifest.json"),
        ("", ""),
    ],
)
def test_nothing_but_the_files_of_published_versions_can_be_fetched(server, models, version, file):
    publish(server.folder.registry, 1)
    with pytest.raises(grpc.RpcError) as error:
        fetch(models, version, file)
    assert (error.value.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "version-gone")


def test_a_link_in_the_registry_leads_nowhere(server, models, tmp_path):
    published = publish(server.folder.registry, 1)
    (published.folder / ONNX).unlink()
    (published.folder / ONNX).symlink_to(server.members.authority.key_file)
    with pytest.raises(grpc.RpcError) as error:
        fetch(models, published.name)
    assert reason(error) == "version-gone"


def test_a_revoked_device_is_refused_at_every_call_on_the_same_connection(server, member, models):
    publish(server.folder.registry, 1)
    assert fetch(models, "000001-r0001", SAFETENSORS)
    server.members.roster.revoke(member.device_name)
    for call in (
        lambda: fetch(models, "000001-r0001"),
        lambda: next(models.WatchModels(pb.WatchModelsRequest(), timeout=WAIT)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert (error.value.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "device-revoked")


def test_an_open_stream_ends_when_its_device_is_revoked(server, member, models):
    publish(server.folder.registry, 1)
    stream = models.WatchModels(pb.WatchModelsRequest(), timeout=3.0)
    next(stream)
    server.members.roster.revoke(member.device_name)
    with pytest.raises(grpc.RpcError) as error:
        next(stream)
    assert reason(error) == "device-revoked"


def test_the_revocation_of_one_device_leaves_the_streams_of_others_alone(server, member, models, tmp_path):
    other = enrol(server.code(), tmp_path / "other", "tablet")
    stream = models.WatchModels(pb.WatchModelsRequest(), timeout=WAIT)
    server.members.roster.revoke(other.device_name)
    time.sleep(0.2)
    publish(server.folder.registry, 1)
    assert next(stream).version == "000001-r0001"


def test_a_certificate_that_was_replaced_is_of_no_device(server, member, models, tmp_path):
    code = server.code()
    enrol(code, member.home, "laptop")
    with pytest.raises(grpc.RpcError) as error:
        fetch(models, "000001-r0001")
    assert (error.value.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "device-unknown")


def identities(server):
    now, authority = Clock()(), server.members.authority
    key = new_key()
    other = CertificateAuthority.create(now)
    pem = key_pem(key)
    return {
        "nothing": (None, None),
        "a certificate of another authority": (pem, certificate_pem(other.issue_device(key.public_key(), "laptop", now))),
        "the server's own certificate": (authority.key_file.read_bytes(), authority.certificate_file.read_bytes()),
        "a certificate that is on no roster": (pem, certificate_pem(authority.ca.issue_device(key.public_key(), "x", now))),
    }


@pytest.mark.parametrize(
    "who", ["nothing", "a certificate of another authority", "the server's own certificate", "a certificate that is on no roster"]
)
def test_the_device_port_serves_nobody_who_shows(server, who):
    publish(server.folder.registry, 1)
    with channel(server, server.api.device_port, *identities(server)[who]) as found:
        stub = rpc.ModelsStub(found)
        for call in (
            lambda: fetch(stub, "000001-r0001"),
            lambda: next(stub.WatchModels(pb.WatchModelsRequest(), timeout=2.0)),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            expected = grpc.StatusCode.UNAUTHENTICATED if "roster" in who else grpc.StatusCode.UNAVAILABLE
            assert error.value.code() == expected


def test_each_port_serves_its_own_service_only(server, member, models):
    with channel(server, server.api.enrol_port) as found, pytest.raises(grpc.RpcError) as error:
        next(rpc.ModelsStub(found).WatchModels(pb.WatchModelsRequest(), timeout=WAIT))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with (
        grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", member.channel_credentials()) as found,
        pytest.raises(grpc.RpcError) as error,
    ):
        rpc.EnrolmentStub(found).Enroll(pb.EnrollRequest(), timeout=WAIT)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_health_is_answered_on_both_ports(server, member):
    names = {"enrol_port": "emofl.device.v1.Enrolment", "device_port": "emofl.device.v1.Models"}
    for port, name in names.items():
        with grpc.secure_channel(f"127.0.0.1:{getattr(server.api, port)}", member.channel_credentials()) as found:
            for service in ("", name):
                reply = health_pb2_grpc.HealthStub(found).Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_a_request_that_is_too_large_is_refused_before_it_is_parsed(server):
    with channel(server, server.api.enrol_port) as found, pytest.raises(grpc.RpcError) as error:
        rpc.EnrolmentStub(found).Enroll(pb.EnrollRequest(token=bytes(100_000)), timeout=WAIT)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_connection_carries_a_limited_number_of_streams(tmp_path):
    with serving(tmp_path / "s", limits=Limits(streams_per_connection=2, look_seconds=0.05)) as server:
        member = enrol(server.code(), tmp_path / "d", "laptop")
        publish(server.folder.registry, 1)
        with grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", member.channel_credentials()) as found:
            stub = rpc.ModelsStub(found)
            streams = [stub.WatchModels(pb.WatchModelsRequest(), timeout=WAIT) for _ in range(2)]
            assert {next(stream).version for stream in streams} == {"000001-r0001"}
            with pytest.raises(grpc.RpcError) as error:
                next(stub.WatchModels(pb.WatchModelsRequest(), timeout=0.5))
            assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_all_connections_together_carry_a_limited_number_of_calls(tmp_path):
    with serving(tmp_path / "s", limits=Limits(calls_at_once=1, look_seconds=0.05)) as server:
        member = enrol(server.code(), tmp_path / "d", "laptop")
        publish(server.folder.registry, 1)
        with grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", member.channel_credentials()) as found:
            stub = rpc.ModelsStub(found)
            first = stub.WatchModels(pb.WatchModelsRequest(), timeout=WAIT)
            next(first)
            with pytest.raises(grpc.RpcError) as error:
                next(stub.WatchModels(pb.WatchModelsRequest(), timeout=WAIT))
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_one_device_has_only_so_many_calls_and_another_one_has_its_own(tmp_path):
    with serving(tmp_path / "s", limits=Limits(calls_per_device=1, look_seconds=0.05)) as server, ExitStack() as stack:
        publish(server.folder.registry, 1)
        stubs = []
        for name in ("laptop", "tablet"):
            credentials = enrol(server.code(), tmp_path / name, name).channel_credentials()
            found = stack.enter_context(grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", credentials))
            stubs.append(rpc.ModelsStub(found))
        first = stubs[0].WatchModels(pb.WatchModelsRequest(), timeout=WAIT)
        next(first)
        with pytest.raises(grpc.RpcError) as error:
            fetch(stubs[0], "000001-r0001")
        assert (error.value.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-calls")
        assert fetch(stubs[1], "000001-r0001")
        first.cancel()
        time.sleep(0.3)
        assert fetch(stubs[0], "000001-r0001")


def test_what_goes_wrong_inside_is_told_to_the_log_and_not_to_the_device(server, models, caplog):
    server.members.roster.path.write_text("damaged")
    with pytest.raises(grpc.RpcError) as error:
        fetch(models, "000001-r0001")
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert str(server.folder.path) not in error.value.details()
    assert "is damaged" in caplog.text


def test_a_taken_port_is_told_in_a_sentence(server, tmp_path):
    with pytest.raises(RunError, match="taken"), serving(tmp_path / "other", ports=(server.api.enrol_port, 0)):
        pass


def test_a_stopped_server_can_start_again_on_its_ports_and_stop_twice(tmp_path):
    with serving(tmp_path / "s") as server:
        ports = server.api.enrol_port, server.api.device_port
        enrol(server.code(), tmp_path / "d", "laptop")
        server.api.stop(0)
        server.api.stop()
    with serving(tmp_path / "s", ports=ports) as server:
        enrol(server.code(), tmp_path / "d", "laptop")
        assert [device.name for device in server.members.roster.devices()] == ["laptop"]


def test_open_streams_do_not_hold_up_a_stop(tmp_path):
    with serving(tmp_path / "s") as server:
        member = enrol(server.code(), tmp_path / "d", "laptop")
        with grpc.secure_channel(f"127.0.0.1:{server.api.device_port}", member.channel_credentials()) as found:
            stream = rpc.ModelsStub(found).WatchModels(pb.WatchModelsRequest())
            failed = threading.Event()

            def read():
                try:
                    next(stream)
                except grpc.RpcError:
                    failed.set()

            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(0.2)
            server.api.stop(0.1)
            assert failed.wait(WAIT)
            reader.join()


def test_it_does_not_start_where_tls_1_2_would_be_spoken(tmp_path):
    with serving(tmp_path / "s") as server:
        server.api.stop()
        with patch("fl_server.device_api.accepts_old_tls", return_value=True), pytest.raises(DependencyError, match=r"TLS 1\.2"):
            server.api.start()


PROGRAM = """
import socket, ssl, sys
from pathlib import Path
import common.device_api
from fl_server.device_api import accepts_old_tls
from tests.membership import serving
from unittest.mock import patch
with serving(Path(sys.argv[1])) as server:
    for port in (server.api.enrol_port, server.api.device_port):
        found = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, version
            try:
                with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secure:
                    found.append(secure.version())
            except ssl.SSLError:
                found.append(None)
        print(found)
"""


def test_both_ports_speak_tls_1_3_and_nothing_older(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.splitlines() == ["[None, 'TLSv1.3']"] * 2


def test_a_port_that_cannot_be_asked_is_not_taken_for_safe():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RunError, match="cannot be reached from itself"):
        accepts_old_tls("127.0.0.1", port)
