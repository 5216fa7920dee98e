import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vault.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_STATE_UNSPECIFIED: _ClassVar[KeyState]
    KEY_STATE_PENDING: _ClassVar[KeyState]
    KEY_STATE_ACTIVE: _ClassVar[KeyState]
    KEY_STATE_DECRYPT_ONLY: _ClassVar[KeyState]
    KEY_STATE_QUARANTINED: _ClassVar[KeyState]
    KEY_STATE_SEALED_OFF: _ClassVar[KeyState]
    KEY_STATE_RETIRED: _ClassVar[KeyState]
    KEY_STATE_DESTROY_SCHEDULED: _ClassVar[KeyState]
    KEY_STATE_DESTROYED: _ClassVar[KeyState]

class KeyPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_PURPOSE_UNSPECIFIED: _ClassVar[KeyPurpose]
    KEY_PURPOSE_KEK: _ClassVar[KeyPurpose]
    KEY_PURPOSE_TOKEN: _ClassVar[KeyPurpose]
    KEY_PURPOSE_CHECKPOINT: _ClassVar[KeyPurpose]
    KEY_PURPOSE_INGEST: _ClassVar[KeyPurpose]

class KeyPlacement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_PLACEMENT_UNSPECIFIED: _ClassVar[KeyPlacement]
    KEY_PLACEMENT_TOKEN: _ClassVar[KeyPlacement]
    KEY_PLACEMENT_WRAPPED: _ClassVar[KeyPlacement]
KEY_STATE_UNSPECIFIED: KeyState
KEY_STATE_PENDING: KeyState
KEY_STATE_ACTIVE: KeyState
KEY_STATE_DECRYPT_ONLY: KeyState
KEY_STATE_QUARANTINED: KeyState
KEY_STATE_SEALED_OFF: KeyState
KEY_STATE_RETIRED: KeyState
KEY_STATE_DESTROY_SCHEDULED: KeyState
KEY_STATE_DESTROYED: KeyState
KEY_PURPOSE_UNSPECIFIED: KeyPurpose
KEY_PURPOSE_KEK: KeyPurpose
KEY_PURPOSE_TOKEN: KeyPurpose
KEY_PURPOSE_CHECKPOINT: KeyPurpose
KEY_PURPOSE_INGEST: KeyPurpose
KEY_PLACEMENT_UNSPECIFIED: KeyPlacement
KEY_PLACEMENT_TOKEN: KeyPlacement
KEY_PLACEMENT_WRAPPED: KeyPlacement

class KeyHomes(_message.Message):
    __slots__ = ("placement", "backends")
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    placement: KeyPlacement
    backends: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, placement: _Optional[_Union[KeyPlacement, str]] = ..., backends: _Optional[_Iterable[str]] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("tenant", "version", "state", "algorithm", "backend", "label", "create_time", "created_by", "purpose", "placement", "backends")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    state: KeyState
    algorithm: str
    backend: str
    label: str
    create_time: _timestamp_pb2.Timestamp
    created_by: str
    purpose: KeyPurpose
    placement: KeyPlacement
    backends: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[KeyState, str]] = ..., algorithm: _Optional[str] = ..., backend: _Optional[str] = ..., label: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_by: _Optional[str] = ..., purpose: _Optional[_Union[KeyPurpose, str]] = ..., placement: _Optional[_Union[KeyPlacement, str]] = ..., backends: _Optional[_Iterable[str]] = ...) -> None: ...

class KeyServiceCreateTenantRequest(_message.Message):
    __slots__ = ("tenant", "request_id", "homes", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HOMES_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    request_id: str
    homes: KeyHomes
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., request_id: _Optional[str] = ..., homes: _Optional[_Union[KeyHomes, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceCreateTenantResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class KeyServiceRotateRequest(_message.Message):
    __slots__ = ("tenant", "request_id", "purpose", "validate_only", "homes")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    HOMES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    request_id: str
    purpose: KeyPurpose
    validate_only: bool
    homes: KeyHomes
    def __init__(self, tenant: _Optional[str] = ..., request_id: _Optional[str] = ..., purpose: _Optional[_Union[KeyPurpose, str]] = ..., validate_only: _Optional[bool] = ..., homes: _Optional[_Union[KeyHomes, _Mapping]] = ...) -> None: ...

class KeyServiceRotateResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class KeyServiceListRequest(_message.Message):
    __slots__ = ("tenant", "page_size", "page_token")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    page_size: int
    page_token: str
    def __init__(self, tenant: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class KeyServiceListResponse(_message.Message):
    __slots__ = ("keys", "next_page_token")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    next_page_token: str
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class KeyServiceDescribeRequest(_message.Message):
    __slots__ = ("tenant", "version")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class KeyServiceDescribeResponse(_message.Message):
    __slots__ = ("key", "credential_versions", "sensitive", "extractable", "local")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SENSITIVE_FIELD_NUMBER: _ClassVar[int]
    EXTRACTABLE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    key: Key
    credential_versions: int
    sensitive: bool
    extractable: bool
    local: bool
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., credential_versions: _Optional[int] = ..., sensitive: _Optional[bool] = ..., extractable: _Optional[bool] = ..., local: _Optional[bool] = ...) -> None: ...

class KeyServiceRetireRequest(_message.Message):
    __slots__ = ("tenant", "version", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceRetireResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class KeyServiceRestoreRequest(_message.Message):
    __slots__ = ("tenant", "version", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceRestoreResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class KeyServiceQuarantineRequest(_message.Message):
    __slots__ = ("tenant", "version", "refuse_reads", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFUSE_READS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    refuse_reads: bool
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., refuse_reads: _Optional[bool] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceQuarantineResponse(_message.Message):
    __slots__ = ("key", "job")
    KEY_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    key: Key
    job: _job_pb2.RewrapJob
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., job: _Optional[_Union[_job_pb2.RewrapJob, _Mapping]] = ...) -> None: ...

class KeyServiceDestroyRequest(_message.Message):
    __slots__ = ("tenant", "version", "delay", "approval_id", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    delay: _duration_pb2.Duration
    approval_id: str
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., approval_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceDestroyResponse(_message.Message):
    __slots__ = ("key", "destroy_time")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DESTROY_TIME_FIELD_NUMBER: _ClassVar[int]
    key: Key
    destroy_time: _timestamp_pb2.Timestamp
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., destroy_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class KeyServiceGetStatusRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class KeyStatus(_message.Message):
    __slots__ = ("key", "credential_versions", "oldest_create_time", "newest_create_time", "suites", "wraps", "rotate_due_time", "destroy_time")
    class SuitesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEWEST_CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SUITES_FIELD_NUMBER: _ClassVar[int]
    WRAPS_FIELD_NUMBER: _ClassVar[int]
    ROTATE_DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    DESTROY_TIME_FIELD_NUMBER: _ClassVar[int]
    key: Key
    credential_versions: int
    oldest_create_time: _timestamp_pb2.Timestamp
    newest_create_time: _timestamp_pb2.Timestamp
    suites: _containers.ScalarMap[str, int]
    wraps: int
    rotate_due_time: _timestamp_pb2.Timestamp
    destroy_time: _timestamp_pb2.Timestamp
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., credential_versions: _Optional[int] = ..., oldest_create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., newest_create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., suites: _Optional[_Mapping[str, int]] = ..., wraps: _Optional[int] = ..., rotate_due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., destroy_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class KeyServiceGetStatusResponse(_message.Message):
    __slots__ = ("versions", "jobs", "remaining", "schedules")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[KeyStatus]
    jobs: _containers.RepeatedCompositeFieldContainer[_job_pb2.RewrapJob]
    remaining: _duration_pb2.Duration
    schedules: _containers.RepeatedCompositeFieldContainer[KeySchedule]
    def __init__(self, versions: _Optional[_Iterable[_Union[KeyStatus, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[_job_pb2.RewrapJob, _Mapping]]] = ..., remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., schedules: _Optional[_Iterable[_Union[KeySchedule, _Mapping]]] = ...) -> None: ...

class KeyServiceListUsesRequest(_message.Message):
    __slots__ = ("tenant", "version", "page_size", "page_token")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    version: int
    page_size: int
    page_token: str
    def __init__(self, tenant: _Optional[str] = ..., version: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class KeyUse(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class KeyServiceListUsesResponse(_message.Message):
    __slots__ = ("uses", "next_page_token")
    USES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    uses: _containers.RepeatedCompositeFieldContainer[KeyUse]
    next_page_token: str
    def __init__(self, uses: _Optional[_Iterable[_Union[KeyUse, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class KeySchedule(_message.Message):
    __slots__ = ("purpose", "every", "max_wraps", "rewrap")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    MAX_WRAPS_FIELD_NUMBER: _ClassVar[int]
    REWRAP_FIELD_NUMBER: _ClassVar[int]
    purpose: KeyPurpose
    every: _duration_pb2.Duration
    max_wraps: int
    rewrap: bool
    def __init__(self, purpose: _Optional[_Union[KeyPurpose, str]] = ..., every: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_wraps: _Optional[int] = ..., rewrap: _Optional[bool] = ...) -> None: ...

class KeyServiceSetScheduleRequest(_message.Message):
    __slots__ = ("tenant", "schedule", "validate_only")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    schedule: KeySchedule
    validate_only: bool
    def __init__(self, tenant: _Optional[str] = ..., schedule: _Optional[_Union[KeySchedule, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class KeyServiceSetScheduleResponse(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: KeySchedule
    def __init__(self, schedule: _Optional[_Union[KeySchedule, _Mapping]] = ...) -> None: ...
