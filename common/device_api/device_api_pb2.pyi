# mypy: ignore-errors
# ruff: noqa
# fmt: off
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("token", "device_name", "certificate_request", "flower_key", "flower_proof", "clock_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    FLOWER_KEY_FIELD_NUMBER: _ClassVar[int]
    FLOWER_PROOF_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    device_name: str
    certificate_request: bytes
    flower_key: bytes
    flower_proof: bytes
    clock_ms: int
    def __init__(self, token: _Optional[bytes] = ..., device_name: _Optional[str] = ..., certificate_request: _Optional[bytes] = ..., flower_key: _Optional[bytes] = ..., flower_proof: _Optional[bytes] = ..., clock_ms: _Optional[int] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("device_name", "certificate", "authority", "publisher_key", "fleet_port", "device_port", "clock_ms")
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_KEY_FIELD_NUMBER: _ClassVar[int]
    FLEET_PORT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_PORT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    device_name: str
    certificate: bytes
    authority: bytes
    publisher_key: bytes
    fleet_port: int
    device_port: int
    clock_ms: int
    def __init__(self, device_name: _Optional[str] = ..., certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., publisher_key: _Optional[bytes] = ..., fleet_port: _Optional[int] = ..., device_port: _Optional[int] = ..., clock_ms: _Optional[int] = ...) -> None: ...

class WatchModelsRequest(_message.Message):
    __slots__ = ("after_sequence",)
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    def __init__(self, after_sequence: _Optional[int] = ...) -> None: ...

class ModelNotice(_message.Message):
    __slots__ = ("version", "manifest", "signature")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    version: str
    manifest: bytes
    signature: bytes
    def __init__(self, version: _Optional[str] = ..., manifest: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class FetchModelRequest(_message.Message):
    __slots__ = ("version", "file", "offset")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    version: str
    file: str
    offset: int
    def __init__(self, version: _Optional[str] = ..., file: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class FileChunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
