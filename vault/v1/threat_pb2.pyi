import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ThreatState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAT_STATE_UNSPECIFIED: _ClassVar[ThreatState]
    THREAT_STATE_OPEN: _ClassVar[ThreatState]
    THREAT_STATE_FROZEN: _ClassVar[ThreatState]
    THREAT_STATE_RELEASED: _ClassVar[ThreatState]
THREAT_STATE_UNSPECIFIED: ThreatState
THREAT_STATE_OPEN: ThreatState
THREAT_STATE_FROZEN: ThreatState
THREAT_STATE_RELEASED: ThreatState

class Threat(_message.Message):
    __slots__ = ("threat_id", "rule", "tenant", "identity", "state", "evidence", "sequence", "create_time")
    THREAT_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    threat_id: str
    rule: str
    tenant: str
    identity: str
    state: ThreatState
    evidence: str
    sequence: int
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, threat_id: _Optional[str] = ..., rule: _Optional[str] = ..., tenant: _Optional[str] = ..., identity: _Optional[str] = ..., state: _Optional[_Union[ThreatState, str]] = ..., evidence: _Optional[str] = ..., sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ThreatServiceListRequest(_message.Message):
    __slots__ = ("only_open", "page_size", "page_token")
    ONLY_OPEN_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    only_open: bool
    page_size: int
    page_token: str
    def __init__(self, only_open: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ThreatServiceListResponse(_message.Message):
    __slots__ = ("threats", "next_page_token")
    THREATS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threats: _containers.RepeatedCompositeFieldContainer[Threat]
    next_page_token: str
    def __init__(self, threats: _Optional[_Iterable[_Union[Threat, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ThreatServiceExplainRequest(_message.Message):
    __slots__ = ("threat_id",)
    THREAT_ID_FIELD_NUMBER: _ClassVar[int]
    threat_id: str
    def __init__(self, threat_id: _Optional[str] = ...) -> None: ...

class ThreatServiceExplainResponse(_message.Message):
    __slots__ = ("threat", "explanation")
    THREAT_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    threat: Threat
    explanation: str
    def __init__(self, threat: _Optional[_Union[Threat, _Mapping]] = ..., explanation: _Optional[str] = ...) -> None: ...

class ThreatServiceReleaseRequest(_message.Message):
    __slots__ = ("threat_id", "purpose")
    THREAT_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    threat_id: str
    purpose: str
    def __init__(self, threat_id: _Optional[str] = ..., purpose: _Optional[str] = ...) -> None: ...

class ThreatServiceReleaseResponse(_message.Message):
    __slots__ = ("threat",)
    THREAT_FIELD_NUMBER: _ClassVar[int]
    threat: Threat
    def __init__(self, threat: _Optional[_Union[Threat, _Mapping]] = ...) -> None: ...

class ThreatServiceGetBlastRadiusRequest(_message.Message):
    __slots__ = ("identity", "token_id", "certificate")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    identity: str
    token_id: str
    certificate: str
    def __init__(self, identity: _Optional[str] = ..., token_id: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...

class Touch(_message.Message):
    __slots__ = ("resource", "action", "granted", "count", "first_time", "last_time")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    resource: str
    action: str
    granted: bool
    count: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, resource: _Optional[str] = ..., action: _Optional[str] = ..., granted: _Optional[bool] = ..., count: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ThreatServiceGetBlastRadiusResponse(_message.Message):
    __slots__ = ("touches", "truncated")
    TOUCHES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    touches: _containers.RepeatedCompositeFieldContainer[Touch]
    truncated: bool
    def __init__(self, touches: _Optional[_Iterable[_Union[Touch, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...
