from pathlib import Path

import common.device_api
from common.device_api import device_api_pb2 as pb

PACKAGE = Path(common.device_api.__file__).parent
PROTO = PACKAGE.parents[1] / "fl_server" / "device_api.proto"


def test_the_stubs_are_those_of_the_documented_proto():
    text = PROTO.read_text()
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        body = text[text.index(f"message {message.name} {{") :]
        body = body[: body.index("\n}")]
        declared = [line.split(";")[0].split()[-3:] for line in body.splitlines() if line.endswith(";") and "//" not in line]
        assert [(name, int(number)) for name, _, number in declared] == [(field.name, field.number) for field in message.fields]
    for service in pb.DESCRIPTOR.services_by_name.values():
        assert f"service {service.name} {{" in text
        assert [method.name for method in service.methods if f"rpc {method.name}(" not in text] == []


def test_the_stubs_ask_for_no_particular_version_of_protobuf_or_grpc():
    for path in PACKAGE.glob("device_api_pb2*.py"):
        text = path.read_text()
        assert "runtime_version" not in text
        assert "GRPC_GENERATED_VERSION" not in text
