import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_GRANTED: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_GRANTED: Outcome
OUTCOME_REFUSED: Outcome

class AuditRecord(_message.Message):
    __slots__ = ("sequence", "id", "create_time", "tenant", "identity", "action", "resource", "outcome", "reason", "ip_address", "device_id", "request_id", "token_id", "session_id", "before_state", "after_state", "rows_written", "leaf_hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_STATE_FIELD_NUMBER: _ClassVar[int]
    AFTER_STATE_FIELD_NUMBER: _ClassVar[int]
    ROWS_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    id: str
    create_time: _timestamp_pb2.Timestamp
    tenant: str
    identity: str
    action: str
    resource: str
    outcome: Outcome
    reason: str
    ip_address: str
    device_id: str
    request_id: str
    token_id: str
    session_id: str
    before_state: str
    after_state: str
    rows_written: str
    leaf_hash: bytes
    def __init__(self, sequence: _Optional[int] = ..., id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., identity: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., ip_address: _Optional[str] = ..., device_id: _Optional[str] = ..., request_id: _Optional[str] = ..., token_id: _Optional[str] = ..., session_id: _Optional[str] = ..., before_state: _Optional[str] = ..., after_state: _Optional[str] = ..., rows_written: _Optional[str] = ..., leaf_hash: _Optional[bytes] = ...) -> None: ...

class AuditServiceListRequest(_message.Message):
    __slots__ = ("tenant", "action", "resource", "identity", "page_size", "page_token", "outcome", "start_time", "end_time", "network", "device_id", "first_sequence", "newest_first", "wait")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    action: str
    resource: str
    identity: str
    page_size: int
    page_token: str
    outcome: Outcome
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    network: str
    device_id: str
    first_sequence: int
    newest_first: bool
    wait: _duration_pb2.Duration
    def __init__(self, tenant: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., identity: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., network: _Optional[str] = ..., device_id: _Optional[str] = ..., first_sequence: _Optional[int] = ..., newest_first: _Optional[bool] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AuditServiceListResponse(_message.Message):
    __slots__ = ("records", "next_page_token")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    next_page_token: str
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AuditServiceGetCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditServiceGetCheckpointResponse(_message.Message):
    __slots__ = ("note", "verifier_key", "verifier_keys")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEYS_FIELD_NUMBER: _ClassVar[int]
    note: str
    verifier_key: str
    verifier_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, note: _Optional[str] = ..., verifier_key: _Optional[str] = ..., verifier_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditServiceVerifyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditServiceVerifyResponse(_message.Message):
    __slots__ = ("valid", "records", "checkpoints", "root_hash", "findings", "accepted", "first_sequence", "anchors")
    VALID_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_HASH_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    records: int
    checkpoints: int
    root_hash: bytes
    findings: _containers.RepeatedScalarFieldContainer[str]
    accepted: _containers.RepeatedScalarFieldContainer[str]
    first_sequence: int
    anchors: int
    def __init__(self, valid: _Optional[bool] = ..., records: _Optional[int] = ..., checkpoints: _Optional[int] = ..., root_hash: _Optional[bytes] = ..., findings: _Optional[_Iterable[str]] = ..., accepted: _Optional[_Iterable[str]] = ..., first_sequence: _Optional[int] = ..., anchors: _Optional[int] = ...) -> None: ...

class AuditServiceWatchVerifyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditServiceWatchVerifyResponse(_message.Message):
    __slots__ = ("records", "total", "verdict")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    records: int
    total: int
    verdict: AuditServiceVerifyResponse
    def __init__(self, records: _Optional[int] = ..., total: _Optional[int] = ..., verdict: _Optional[_Union[AuditServiceVerifyResponse, _Mapping]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("size", "note", "frontier", "create_time")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    FRONTIER_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    size: int
    note: str
    frontier: bytes
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, size: _Optional[int] = ..., note: _Optional[str] = ..., frontier: _Optional[bytes] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AuditServiceListCheckpointsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class AuditServiceListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "next_page_token")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    next_page_token: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AuditServiceGetInclusionProofRequest(_message.Message):
    __slots__ = ("sequence", "size")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    size: int
    def __init__(self, sequence: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class AuditServiceGetInclusionProofResponse(_message.Message):
    __slots__ = ("record", "checkpoint", "path", "verifier_key")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    record: AuditRecord
    checkpoint: Checkpoint
    path: _containers.RepeatedScalarFieldContainer[bytes]
    verifier_key: str
    def __init__(self, record: _Optional[_Union[AuditRecord, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., path: _Optional[_Iterable[bytes]] = ..., verifier_key: _Optional[str] = ...) -> None: ...

class AuditServiceGetConsistencyProofRequest(_message.Message):
    __slots__ = ("old_size", "size")
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    old_size: int
    size: int
    def __init__(self, old_size: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class AuditServiceGetConsistencyProofResponse(_message.Message):
    __slots__ = ("old_checkpoint", "checkpoint", "path", "verifier_key")
    OLD_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    old_checkpoint: Checkpoint
    checkpoint: Checkpoint
    path: _containers.RepeatedScalarFieldContainer[bytes]
    verifier_key: str
    def __init__(self, old_checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., path: _Optional[_Iterable[bytes]] = ..., verifier_key: _Optional[str] = ...) -> None: ...

class AuditServiceListSinksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditServiceListSinksResponse(_message.Message):
    __slots__ = ("sinks",)
    SINKS_FIELD_NUMBER: _ClassVar[int]
    sinks: _containers.RepeatedCompositeFieldContainer[AuditSink]
    def __init__(self, sinks: _Optional[_Iterable[_Union[AuditSink, _Mapping]]] = ...) -> None: ...

class AuditSink(_message.Message):
    __slots__ = ("name", "required", "next_sequence", "behind", "error", "failing_since")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILING_SINCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    required: bool
    next_sequence: int
    behind: int
    error: str
    failing_since: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., required: _Optional[bool] = ..., next_sequence: _Optional[int] = ..., behind: _Optional[int] = ..., error: _Optional[str] = ..., failing_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AuditServiceAcceptLossRequest(_message.Message):
    __slots__ = ("sequence", "approval_id")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    approval_id: str
    def __init__(self, sequence: _Optional[int] = ..., approval_id: _Optional[str] = ...) -> None: ...

class AuditServiceAcceptLossResponse(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class AuditServiceReportRequest(_message.Message):
    __slots__ = ("standard", "period", "cryptoperiod")
    STANDARD_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    CRYPTOPERIOD_FIELD_NUMBER: _ClassVar[int]
    standard: str
    period: _duration_pb2.Duration
    cryptoperiod: _duration_pb2.Duration
    def __init__(self, standard: _Optional[str] = ..., period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cryptoperiod: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AuditServiceReportResponse(_message.Message):
    __slots__ = ("report", "note", "verifier_key")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    report: str
    note: str
    verifier_key: str
    def __init__(self, report: _Optional[str] = ..., note: _Optional[str] = ..., verifier_key: _Optional[str] = ...) -> None: ...

class AuditServiceIdentifyRequest(_message.Message):
    __slots__ = ("pseudonyms",)
    PSEUDONYMS_FIELD_NUMBER: _ClassVar[int]
    pseudonyms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pseudonyms: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditServiceIdentifyResponse(_message.Message):
    __slots__ = ("identities",)
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, identities: _Optional[_Iterable[str]] = ...) -> None: ...
