"""Holds flwr 1.41.0 to what `fl_server.superlink` relies on, and the network's port to what it may answer."""

import json
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.grid import HttpGrid

from common.certificates import new_key, public_pem
from common.errors import RunError
from fl_server.fleet_door import MOST_OBJECTS, MOST_TEXT, FleetDoor, is_object_id, plain_objects
from fl_server.start_commands import own_addresses
from fl_server.superlink import SuperLink
from tests.deployed import ADMIN, Deployed, ask, server_app, signed, superlink, write_identity

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with superlink(tmp_path_factory.mktemp("superlink")) as running:
        yield running


def enrolled(link: SuperLink, name: str = "one") -> tuple[EllipticCurvePrivateKey, int]:
    key = new_key()
    return key, link.enrol(public_pem(key.public_key()), name)


def activate(deployed: Deployed, key: EllipticCurvePrivateKey, ahead: timedelta = timedelta()) -> tuple[int, bytes]:
    request = ActivateNodeRequest(public_key=public_pem(key.public_key()), heartbeat_interval=30)
    return ask(deployed, "POST", "/v1/fleet/activate-node", request.SerializeToString(), signed(key, ahead))


def pull(deployed: Deployed, key: EllipticCurvePrivateKey, node: int) -> PullMessagesResponse:
    request = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
    status, body = ask(deployed, "POST", "/v1/fleet/pull-messages", request, signed(key))
    assert status == 200
    return PullMessagesResponse.FromString(body)


def test_the_pinned_version_of_flower_is_installed() -> None:
    assert version("flwr") == "1.41.0"


def test_the_network_cannot_reach_any_control_or_runtime_route(deployed: Deployed) -> None:
    key, _ = enrolled(deployed.link)
    shut = [path for method, path in PROTOBUF_REQUEST_TYPES if not path.startswith("/v1/fleet/")]
    assert len(shut) > 50
    for path in ["/v1/fleet/register-node", "/v1/fleet/unregister-node", *shut[::6]]:
        assert ask(deployed, "POST", path, b"", signed(key) | {"authorization": f"Bearer {ADMIN}"})[0] == 404, path


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health", "/v1/fleet/", "/v1/fleet/../control/list-runs"])
def test_the_network_is_answered_404_for_what_is_not_on_the_list(deployed: Deployed, path: str) -> None:
    assert ask(deployed, "GET", path)[0] == 404


def test_the_control_api_answers_loopback_with_the_admin_token_alone(deployed: Deployed) -> None:
    def status(token: str) -> int:
        headers = {"content-type": "application/protobuf"} | ({"authorization": f"Bearer {token}"} if token else {})
        return ask(deployed, "POST", "/v1/control/list-runs", b"", headers, inside=True)[0]

    assert status("") == status("wrong") == 401
    assert status(ADMIN) == 200


def test_the_runtime_api_refuses_who_has_no_task_and_no_secret(deployed: Deployed) -> None:
    headers = {"content-type": "application/protobuf"}
    for name in ("acquire-task", "pull-task-input", "push-messages", "get-nodes"):
        assert ask(deployed, "POST", f"/v1/runtime/{name}", b"", headers, inside=True)[0] in (401, 403), name


def test_without_a_token_nothing_is_read_that_comes_over_loopback(deployed: Deployed) -> None:
    """Any account of the machine can connect: 64 MiB in each of 256 connections would end the server."""
    run = deployed.link.start_run()
    headers = {"content-type": "application/protobuf", "content-length": str(60 * 2**20)}
    for extra in ({}, {"flwr-task-token": "guessed"}, {"authorization": "Bearer guessed"}, {"flwr-task-token": ADMIN}):
        for path in ("/v1/runtime/push-messages", "/v1/control/list-runs"):
            assert ask(deployed, "POST", path, b"", headers | extra, inside=True)[0] == 401
    deployed.link.end_run(run.run_id)
    late = {"content-type": "application/protobuf", "flwr-task-token": run.token}
    assert ask(deployed, "POST", "/v1/runtime/get-nodes", b"", late, inside=True) == (401, b'{"reason": "no-token"}')


def test_the_loopback_port_does_not_serve_devices(deployed: Deployed) -> None:
    key, _ = enrolled(deployed.link)
    assert ask(deployed, "POST", "/v1/fleet/pull-messages", b"", signed(key), inside=True)[0] == 404


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_the_network_port_speaks_tls_1_3_alone(deployed: Deployed, version: ssl.TLSVersion) -> None:
    import socket

    context = ssl.create_default_context(cafile=str(deployed.ca_file))
    context.maximum_version = version
    with socket.create_connection(("127.0.0.1", deployed.link.port), timeout=5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_device_takes_part_once_it_is_enrolled_and_no_longer_once_revoked(deployed: Deployed) -> None:
    key = new_key()
    pem = public_pem(key.public_key())
    status, body = activate(deployed, key)
    assert (status, json.loads(body)) == (401, {"reason": "not-enrolled"})
    node = deployed.link.enrol(pem, "one")
    assert deployed.link.enrol(pem, "one") == node
    status, body = activate(deployed, key)
    assert (status, ActivateNodeResponse.FromString(body).node_id) == (200, node)
    assert deployed.link.enrolled()[pem] == (node, True)
    deployed.link.revoke(pem)
    status, body = activate(deployed, key)
    assert (status, json.loads(body)) == (401, {"reason": "revoked"})
    assert pem not in deployed.link.enrolled()
    with pytest.raises(RunError, match="new key"):
        deployed.link.enrol(pem, "one")


def test_a_device_that_starts_again_at_once_is_let_in_at_once(deployed: Deployed) -> None:
    key, _ = enrolled(deployed.link)
    assert activate(deployed, key)[0] == 200
    assert activate(deployed, key)[0] == 200


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_clock_that_is_wrong_is_named_to_the_device_and_to_nobody_else(deployed: Deployed, minutes: int) -> None:
    key, _ = enrolled(deployed.link)
    status, body = activate(deployed, key, timedelta(minutes=minutes))
    assert (status, json.loads(body)) == (401, {"reason": "clock"})
    forged = signed(key, timedelta(minutes=minutes)) | {"flwr-signature": signed(new_key())["flwr-signature"]}
    status, body = ask(deployed, "POST", "/v1/fleet/activate-node", b"", forged)
    assert (status, json.loads(body)) == (401, {"reason": "unsigned"})


def test_one_device_cannot_ask_for_another_ones_messages(deployed: Deployed) -> None:
    (key, _), (_, other) = enrolled(deployed.link), enrolled(deployed.link, "two")
    request = PullMessagesRequest(node=Node(node_id=other)).SerializeToString()
    assert ask(deployed, "POST", "/v1/fleet/pull-messages", request, signed(key))[0] == 401


def test_a_body_is_refused_by_its_length_before_it_is_sent(deployed: Deployed) -> None:
    key, _ = enrolled(deployed.link)
    headers = signed(key) | {"content-length": str(2**40)}
    assert ask(deployed, "POST", "/v1/fleet/push-object", b"", headers)[0] == 413


def test_who_is_not_enrolled_is_refused_before_a_body_is_read(deployed: Deployed) -> None:
    assert ask(deployed, "POST", "/v1/fleet/push-object", b"", {"content-length": str(2**20)})[0] == 401


def test_messages_go_to_a_device_and_only_their_envelopes_touch_the_disk(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    grid = server_app(deployed, deployed.link.start_run())
    activate(deployed, key)
    assert node in grid.get_node_ids()
    pattern = np.full(5000, 0.123456789, dtype=np.float32)
    content = RecordDict({"a": ArrayRecord([pattern])})
    (sent,) = grid.push_messages([Message(content, dst_node_id=node, message_type="train")])
    received = pull(deployed, key, node)
    assert received.messages_list[0].metadata.message_id == sent
    written = b"".join(file.read_bytes() for file in deployed.database.parent.iterdir())
    assert sent.encode() in written
    assert pattern[:4].tobytes() not in written
    assert all(not stat.S_IMODE(file.stat().st_mode) & 0o077 for file in deployed.database.parent.iterdir())
    grid.close()


def test_a_message_that_died_with_its_device_is_answered_when_the_device_comes_back(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    grid = server_app(deployed, deployed.link.start_run())
    activate(deployed, key)
    sent = list(grid.push_messages([Message(RecordDict(), dst_node_id=node, message_type="train")]))
    assert pull(deployed, key, node).messages_list
    assert list(grid.pull_messages(sent)) == []
    activate(deployed, key)
    (reply,) = grid.pull_messages(sent)
    assert reply.has_error()
    grid.close()


def test_a_server_that_comes_back_knows_its_devices_and_none_of_its_messages(tmp_path: Path) -> None:
    identity = write_identity(tmp_path)
    with superlink(tmp_path, identity) as first:
        key, node = enrolled(first.link)
        grid = server_app(first, first.link.start_run())
        activate(first, key)
        grid.push_messages([Message(RecordDict(), dst_node_id=node, message_type="train")])
        grid.close()
    with superlink(tmp_path, identity) as second:
        assert second.link.enrol(public_pem(key.public_key()), "one") == node
        activate(second, key)
        assert not pull(second, key, node).messages_list
        grid = server_app(second, second.link.start_run())
        assert list(grid.get_node_ids()) == [node]
        grid.close()


def test_a_reply_in_another_devices_name_or_with_content_in_its_envelope_is_refused(deployed: Deployed) -> None:
    (key, node), (_, other) = enrolled(deployed.link), enrolled(deployed.link, "two")

    def push(*replies: ProtoMessage) -> tuple[int, bytes]:
        request = PushMessagesRequest(node=Node(node_id=node), messages_list=replies)
        return ask(deployed, "POST", "/v1/fleet/push-messages", request.SerializeToString(), signed(key))

    foreign = ProtoMessage(metadata=ProtoMetadata(src_node_id=other))
    full = ProtoMessage(metadata=ProtoMetadata(src_node_id=node))
    full.content.items.add(key="a")
    assert push(foreign) == push() == push(foreign, foreign) == (400, b'{"reason": "not-yours"}')
    assert push(full) == (400, b'{"reason": "content-in-envelope"}')
    assert ask(deployed, "POST", "/v1/fleet/push-messages", b"\xff\xff", signed(key))[0] == 400


def test_from_another_address_of_this_machine_the_loopback_port_is_shut(tmp_path: Path) -> None:
    import socket

    addresses = [address for address in own_addresses() if not address.startswith("127.")]
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    link = SuperLink(tmp_path / "state" / "state.db", write_identity(tmp_path), "0.0.0.0", 0, ADMIN)
    link.start()
    try:
        with socket.create_connection((addresses[0], link.port), timeout=5):
            pass
        with pytest.raises(ConnectionError):
            socket.create_connection((addresses[0], int(link.runtime_address.rpartition(":")[2])), timeout=5)
    finally:
        link.stop()


def test_an_object_of_no_message_is_not_stored(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    server_app(deployed, run).close()
    request = PushObjectRequest(node=Node(node_id=node), run_id=run.run_id, object_id="0" * 64, object_content=b"x" * 1000)
    status, body = ask(deployed, "POST", "/v1/fleet/push-object", request.SerializeToString(), signed(key))
    assert status != 200 or body == b""


def test_the_bundle_of_a_run_names_the_apps_and_holds_no_code() -> None:
    from fl_server.superlink import bundle_files

    assert list(bundle_files()) == ["pyproject.toml"]
    assert b"import" not in bundle_files()["pyproject.toml"]


def test_flower_gives_messages_no_content_in_their_envelope() -> None:
    message = Message(RecordDict({"a": ArrayRecord([np.zeros(9, np.float32)])}), dst_node_id=1, message_type="train")
    assert len(message_to_proto(remove_content_from_message(message)).SerializeToString()) < 400


def _tower(height: int) -> ObjectTree:
    """Each level holds the one below twice: once whole, once as a bare name."""
    tree = ObjectTree(object_id="0")
    for level in range(1, height):
        above = ObjectTree(object_id=str(level))
        above.children.append(tree)
        above.children.append(ObjectTree(object_id=tree.object_id))
        tree = above
    return tree


def test_a_tree_that_would_grow_without_end_when_it_is_expanded_is_not_plain() -> None:
    assert plain_objects(_tower(20)) is None
    assert plain_objects(ObjectTree(object_id="a", children=[ObjectTree(object_id=str(n)) for n in range(MOST_OBJECTS)])) is None
    leaf = ObjectTree(object_id="leaf")
    assert plain_objects(ObjectTree(object_id="a", children=[leaf, leaf]))
    assert plain_objects(ObjectTree(object_id="a", children=[ObjectTree(object_id=str(n)) for n in range(500)]))


def test_keys_of_every_other_kind_are_refused_without_a_traceback(deployed: Deployed) -> None:
    from base64 import b64encode

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(pem).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(b"x").decode(),
        TIMESTAMP_HEADER: "2026-01-01T00:00:00+00:00",
    }
    refusal = FleetDoor(deployed.link._state).admit("/v1/fleet/activate-node", headers)
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (401, "unsigned")


def reply_to(message_id: str, run_id: int, node: int, values: np.ndarray) -> Message:
    """A device's answer, as its own client makes it."""
    from flwr.app import Metadata
    from flwr.app.message import make_message

    metadata = Metadata(run_id, "", node, 1, message_id, "", datetime.now(UTC).timestamp(), 3600.0, "train")
    message = make_message(metadata=metadata, content=RecordDict({"update": ArrayRecord([values])}))
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


class Sender:
    """A device that announces a reply, and sends its objects one by one."""

    def __init__(self, deployed: Deployed, key: EllipticCurvePrivateKey, reply: Message) -> None:
        self.deployed, self.key, self.reply = deployed, key, reply
        self.node, self.run_id = Node(node_id=reply.metadata.src_node_id), reply.metadata.run_id
        with no_object_id_recompute():
            self.tree = get_object_tree(reply)
            self.parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
        self.session = ""

    def announce(self, tree: ObjectTree | None = None, error: bool = False, **changed: Any) -> int:
        """Status of the answer; `error`: the envelope says that it is one; `changed` are fields of its metadata."""
        envelope = message_to_proto(remove_content_from_message(self.reply))
        if error:
            envelope.ClearField("content")
            envelope.error.code = 1
        for name, value in changed.items():
            setattr(envelope.metadata, name, value)
        request = PushMessagesRequest(node=self.node, messages_list=[envelope], message_object_trees=[tree or self.tree])
        status, body = ask(self.deployed, "POST", "/v1/fleet/push-messages", request.SerializeToString(), signed(self.key))
        if status == 200:
            self.session = PushMessagesResponse.FromString(body).session_id
        return status

    def send(self, name: str) -> tuple[int, bytes]:
        content = self.parts[name]
        request = PushObjectRequest(
            node=self.node, run_id=self.run_id, session_id=self.session, object_id=name, object_content=content
        )
        return ask(self.deployed, "POST", "/v1/fleet/push-object", request.SerializeToString(), signed(self.key))


def asked(deployed: Deployed, grid: HttpGrid, key: EllipticCurvePrivateKey, node: int) -> str:
    """The id of a message that the device has fetched."""
    activate(deployed, key)
    (sent,) = grid.push_messages([Message(RecordDict(), dst_node_id=node, message_type="train")])
    assert pull(deployed, key, node).messages_list
    return str(sent)


def held(deployed: Deployed) -> int:
    """Bytes of objects in the server's memory."""
    return sum(len(entry.content) for entry in deployed.link._state.object_store.store.values())  # type: ignore[attr-defined]


def test_a_reply_that_is_too_large_is_refused_dropped_and_told_and_the_run_goes_on(deployed: Deployed) -> None:
    (key, node), (other_key, other) = enrolled(deployed.link), enrolled(deployed.link, "two")
    run = deployed.link.start_run(lambda: 1_000_000)
    grid = server_app(deployed, run)
    greedy = Sender(deployed, key, reply_to(asked(deployed, grid, key, node), run.run_id, node, np.ones(2_000_000, np.float32)))
    honest = asked(deployed, grid, other_key, other)
    before = held(deployed)
    assert greedy.announce() == 200
    statuses = [greedy.send(name) for name in greedy.parts]
    assert (413, b'{"reason": "reply-too-large"}') in statuses
    assert {status for status, _ in statuses} <= {200, 413, 403}
    assert held(deployed) <= before
    (told,) = grid.pull_messages([greedy.reply.metadata.reply_to_message_id])
    assert told.has_error()
    sender = Sender(deployed, other_key, reply_to(honest, run.run_id, other, np.ones(200_000, np.float32)))
    assert sender.announce() == 200
    assert {sender.send(name)[0] for name in sender.parts} == {200}
    (reply,) = grid.pull_messages([honest])
    assert not reply.has_error()
    grid.close()


def test_a_reply_is_not_given_out_before_all_of_it_is_there(deployed: Deployed) -> None:
    """The ServerApp would wait for the rest of it, and for nobody else's meanwhile."""
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    message = asked(deployed, grid, key, node)
    sender = Sender(deployed, key, reply_to(message, run.run_id, node, np.arange(3_000_000, dtype=np.float32)))
    assert sender.announce() == 200
    *most, last = sender.parts
    assert len(most) > 3
    for name in most:
        assert sender.send(name)[0] == 200
        assert deployed.link._state.get_message_res({message}, run.run_id) == []
    assert sender.send(last)[0] == 200
    (reply,) = grid.pull_messages([message])
    assert reply.content["update"]["0"].numpy()[-1] == 2_999_999
    grid.close()


def test_a_reply_that_died_with_its_device_is_answered_when_the_device_comes_back(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    message = asked(deployed, grid, key, node)
    before = held(deployed)
    sender = Sender(deployed, key, reply_to(message, run.run_id, node, np.arange(3_000_000, dtype=np.float32)))
    assert sender.announce() == 200
    for name in list(sender.parts)[:-1]:
        assert sender.send(name)[0] == 200
    assert deployed.link._state.get_message_res({message}, run.run_id) == []
    activate(deployed, key)
    (reply,) = grid.pull_messages([message])
    assert reply.has_error()
    assert held(deployed) <= before
    grid.close()


def test_a_device_can_send_no_part_of_another_ones_reply_nor_hide_a_reply_in_a_reply(deployed: Deployed) -> None:
    (key, node), (other_key, other) = enrolled(deployed.link), enrolled(deployed.link, "two")
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    one, two = asked(deployed, grid, key, node), asked(deployed, grid, other_key, other)
    sender = Sender(deployed, key, reply_to(one, run.run_id, node, np.ones(10, np.float32)))
    assert sender.announce() == 200
    thief = Sender(deployed, other_key, sender.reply)
    assert thief.send(next(iter(sender.parts))) == (403, b'{"reason": "not-announced"}')
    hiding = Sender(deployed, other_key, reply_to(two, run.run_id, other, np.zeros(10, np.float32)))
    tree = ObjectTree(
        object_id=hiding.tree.object_id, children=[*hiding.tree.children, ObjectTree(object_id=sender.tree.object_id)]
    )
    assert hiding.announce(tree) == 400
    assert hiding.announce() == 200
    grid.close()
    deployed.link.end_run(run.run_id)


def test_flower_calls_objects_and_messages_by_64_lower_case_hex_digits(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    message = asked(deployed, grid, key, node)
    sender = Sender(deployed, key, reply_to(message, run.run_id, node, np.ones(10, np.float32)))
    assert all(map(is_object_id, [message, sender.tree.object_id, *sender.parts]))
    assert not any(
        map(is_object_id, ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "0x" + "0" * 62, "\u0663" * 64])
    )
    assert sender.announce() == 200
    assert len(sender.session) <= MOST_TEXT
    assert {sender.send(name)[0] for name in sender.parts} == {200}
    grid.close()


def test_a_reply_whose_names_are_not_of_flowers_making_is_refused_before_flower_logs_it(
    deployed: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    message = asked(deployed, grid, key, node)
    sender = Sender(deployed, key, reply_to(message, run.run_id, node, np.ones(10, np.float32)))
    root, parts = sender.tree.object_id, list(sender.tree.children)
    for tree, changed in [
        (None, {"reply_to_message_id": "x" * 900_000}),
        (None, {"reply_to_message_id": message.upper()}),
        (None, {"reply_to_message_id": ""}),
        (ObjectTree(object_id=root.upper(), children=parts), {"message_id": root.upper()}),
        (ObjectTree(object_id=root, children=[*parts, ObjectTree(object_id="x" * 100_000)]), {}),
        (None, {"message_type": "x" * (MOST_TEXT + 1)}),
        (None, {"group_id": "x" * (MOST_TEXT + 1)}),
    ]:
        assert sender.announce(tree, **changed) == 400, changed
    assert not deployed.link._door.replies._by_node.get(node)
    assert sender.announce() == 200
    sender.session = "x" * 1_000
    assert sender.send(root) == (400, b'{"reason": "malformed"}')
    sender.session, sender.parts["x" * 1_000] = "", b"x"
    assert sender.send("x" * 1_000) == (400, b'{"reason": "malformed"}')
    assert all(len(record.getMessage()) < 1_000 for record in caplog.records)
    grid.close()
    deployed.link.end_run(run.run_id)


def test_replies_to_a_run_that_is_invented_or_over_are_refused_and_nothing_is_remembered_of_them(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    over, run = deployed.link.start_run(), deployed.link.start_run()
    server_app(deployed, over).close()
    deployed.link.end_run(over.run_id)
    objects, replies = len(deployed.link._state.object_store), deployed.link._door.replies
    for run_id in (over.run_id, 424242):
        for number in range(5):
            sender = Sender(deployed, key, reply_to(f"{number:064}", run_id, node, np.full(10, number, np.float32)))
            assert sender.announce() >= 400
            assert {sender.send(name) for name in sender.parts} == {(403, b'{"reason": "not-announced"}')}
    assert len(deployed.link._state.object_store) == objects
    assert not replies._by_node.get(node)
    assert {over.run_id, 424242}.isdisjoint(replies._limits)
    assert run.run_id in replies._limits


def test_flower_refuses_a_reply_that_was_dropped_when_it_is_announced_again(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run(lambda: 10_000)
    grid = server_app(deployed, run)
    sender = Sender(deployed, key, reply_to(asked(deployed, grid, key, node), run.run_id, node, np.ones(100_000, np.float32)))
    before = held(deployed)
    for _ in range(3):
        sender.announce()
        assert 413 in {sender.send(name)[0] for name in sender.parts}
        assert held(deployed) <= before
        assert node not in deployed.link._door.replies._by_node
    grid.close()
    deployed.link.end_run(run.run_id)


def test_a_reply_is_forgotten_by_name_once_the_server_app_has_fetched_it(deployed: Deployed) -> None:
    key, node = enrolled(deployed.link)
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    fetched = []
    for number in range(6):
        message = asked(deployed, grid, key, node)
        sender = Sender(deployed, key, reply_to(message, run.run_id, node, np.full(10, number, np.float32)))
        assert sender.announce() == 200
        assert {sender.send(name)[0] for name in sender.parts} == {200}
        assert [reply.name for reply in deployed.link._door.replies._by_node[node]] == [sender.tree.object_id]
        fetched += grid.pull_messages([message])
    assert not any(reply.has_error() for reply in fetched)
    assert len(fetched) == 6
    grid.close()
    deployed.link.end_run(run.run_id)


def test_a_run_whose_process_takes_minutes_to_load_is_waited_for(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.corestate import sql_corestate

    kept, lost = deployed.link.start_run(), deployed.link.start_run()
    state, began = deployed.link._state, datetime.now(UTC)
    for seconds in (20, 60, 110):
        monkeypatch.setattr(sql_corestate, "now", lambda seconds=seconds: began + timedelta(seconds=seconds))
        deployed.link.keep_alive(kept)
    assert state.get_task_by_token(kept.token) is not None
    assert state.get_task_by_token(lost.token) is None
