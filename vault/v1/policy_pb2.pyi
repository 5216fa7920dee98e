import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Policy(_message.Message):
    __slots__ = ("version", "text", "sha256", "comment", "created_by", "create_time", "in_force")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    text: str
    sha256: str
    comment: str
    created_by: str
    create_time: _timestamp_pb2.Timestamp
    in_force: bool
    def __init__(self, version: _Optional[int] = ..., text: _Optional[str] = ..., sha256: _Optional[str] = ..., comment: _Optional[str] = ..., created_by: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., in_force: _Optional[bool] = ...) -> None: ...

class PolicyRule(_message.Message):
    __slots__ = ("name", "permits", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PERMITS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    permits: bool
    text: str
    def __init__(self, name: _Optional[str] = ..., permits: _Optional[bool] = ..., text: _Optional[str] = ...) -> None: ...

class PolicyCircumstances(_message.Message):
    __slots__ = ("purpose", "ttl", "device_id", "ip_address", "time", "approvals")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    ttl: _duration_pb2.Duration
    device_id: str
    ip_address: str
    time: _timestamp_pb2.Timestamp
    approvals: int
    def __init__(self, purpose: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., device_id: _Optional[str] = ..., ip_address: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., approvals: _Optional[int] = ...) -> None: ...

class PolicyServiceGetRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PolicyServiceGetResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class PolicyServiceListRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class PolicyServiceListResponse(_message.Message):
    __slots__ = ("policies", "next_page_token")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    next_page_token: str
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PolicyServiceValidateRequest(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class PolicyServiceValidateResponse(_message.Message):
    __slots__ = ("problems", "text")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    text: str
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., text: _Optional[str] = ...) -> None: ...

class PolicyServiceApplyRequest(_message.Message):
    __slots__ = ("text", "base_version", "comment", "approval_id", "request_id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    text: str
    base_version: int
    comment: str
    approval_id: str
    request_id: str
    def __init__(self, text: _Optional[str] = ..., base_version: _Optional[int] = ..., comment: _Optional[str] = ..., approval_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PolicyServiceApplyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class PolicyServiceExplainRequest(_message.Message):
    __slots__ = ("identity", "scope", "circumstances")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CIRCUMSTANCES_FIELD_NUMBER: _ClassVar[int]
    identity: str
    scope: str
    circumstances: PolicyCircumstances
    def __init__(self, identity: _Optional[str] = ..., scope: _Optional[str] = ..., circumstances: _Optional[_Union[PolicyCircumstances, _Mapping]] = ...) -> None: ...

class PolicyServiceExplainResponse(_message.Message):
    __slots__ = ("allowed", "rules", "failed", "version")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    rules: _containers.RepeatedCompositeFieldContainer[PolicyRule]
    failed: bool
    version: int
    def __init__(self, allowed: _Optional[bool] = ..., rules: _Optional[_Iterable[_Union[PolicyRule, _Mapping]]] = ..., failed: _Optional[bool] = ..., version: _Optional[int] = ...) -> None: ...

class PolicyServiceListReachersRequest(_message.Message):
    __slots__ = ("name", "identities", "circumstances")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    CIRCUMSTANCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    identities: _containers.RepeatedScalarFieldContainer[str]
    circumstances: PolicyCircumstances
    def __init__(self, name: _Optional[str] = ..., identities: _Optional[_Iterable[str]] = ..., circumstances: _Optional[_Union[PolicyCircumstances, _Mapping]] = ...) -> None: ...

class Reacher(_message.Message):
    __slots__ = ("identity", "actions", "rules")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    identity: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, identity: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyServiceListReachersResponse(_message.Message):
    __slots__ = ("reachers", "open_rules")
    REACHERS_FIELD_NUMBER: _ClassVar[int]
    OPEN_RULES_FIELD_NUMBER: _ClassVar[int]
    reachers: _containers.RepeatedCompositeFieldContainer[Reacher]
    open_rules: _containers.RepeatedCompositeFieldContainer[PolicyRule]
    def __init__(self, reachers: _Optional[_Iterable[_Union[Reacher, _Mapping]]] = ..., open_rules: _Optional[_Iterable[_Union[PolicyRule, _Mapping]]] = ...) -> None: ...
