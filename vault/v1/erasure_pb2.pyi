from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ErasureServiceDescribeRequest(_message.Message):
    __slots__ = ("tenant", "subject", "identity")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    subject: str
    identity: str
    def __init__(self, tenant: _Optional[str] = ..., subject: _Optional[str] = ..., identity: _Optional[str] = ...) -> None: ...

class ErasureServiceDescribeResponse(_message.Message):
    __slots__ = ("action", "resource", "arguments", "credentials", "versions")
    class ArgumentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    action: str
    resource: str
    arguments: _containers.ScalarMap[str, str]
    credentials: int
    versions: int
    def __init__(self, action: _Optional[str] = ..., resource: _Optional[str] = ..., arguments: _Optional[_Mapping[str, str]] = ..., credentials: _Optional[int] = ..., versions: _Optional[int] = ...) -> None: ...

class ErasureServiceEraseRequest(_message.Message):
    __slots__ = ("tenant", "subject", "approval_id", "identity")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    subject: str
    approval_id: str
    identity: str
    def __init__(self, tenant: _Optional[str] = ..., subject: _Optional[str] = ..., approval_id: _Optional[str] = ..., identity: _Optional[str] = ...) -> None: ...

class ErasureServiceEraseResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: str
    def __init__(self, certificate: _Optional[str] = ...) -> None: ...
