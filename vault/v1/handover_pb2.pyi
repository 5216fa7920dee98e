import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HandoverServiceWrapRequest(_message.Message):
    __slots__ = ("name", "recipient", "sealed", "ingest_key_id", "ttl", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    INGEST_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    recipient: str
    sealed: bytes
    ingest_key_id: str
    ttl: _duration_pb2.Duration
    request_id: str
    def __init__(self, name: _Optional[str] = ..., recipient: _Optional[str] = ..., sealed: _Optional[bytes] = ..., ingest_key_id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class HandoverServiceWrapResponse(_message.Message):
    __slots__ = ("handover_id", "expire_time")
    HANDOVER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    handover_id: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, handover_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class HandoverServiceUnwrapRequest(_message.Message):
    __slots__ = ("name", "handover_id", "recipient_key", "hpke_suite")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    HPKE_SUITE_FIELD_NUMBER: _ClassVar[int]
    name: str
    handover_id: str
    recipient_key: bytes
    hpke_suite: int
    def __init__(self, name: _Optional[str] = ..., handover_id: _Optional[str] = ..., recipient_key: _Optional[bytes] = ..., hpke_suite: _Optional[int] = ...) -> None: ...

class HandoverServiceUnwrapResponse(_message.Message):
    __slots__ = ("sealed", "field_names", "sender", "create_time")
    SEALED_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    sealed: bytes
    field_names: _containers.RepeatedScalarFieldContainer[str]
    sender: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, sealed: _Optional[bytes] = ..., field_names: _Optional[_Iterable[str]] = ..., sender: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
