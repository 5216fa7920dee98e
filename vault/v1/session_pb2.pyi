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

class WebhookScheme(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEBHOOK_SCHEME_UNSPECIFIED: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_STRIPE: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_STANDARD_WEBHOOKS: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_PLAID: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_BRAINTREE: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_ADYEN: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_ADYEN_PLATFORM: _ClassVar[WebhookScheme]
    WEBHOOK_SCHEME_GOCARDLESS: _ClassVar[WebhookScheme]

class MacHash(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MAC_HASH_UNSPECIFIED: _ClassVar[MacHash]
    MAC_HASH_SHA256: _ClassVar[MacHash]
    MAC_HASH_SHA384: _ClassVar[MacHash]
    MAC_HASH_SHA512: _ClassVar[MacHash]

class WebhookVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEBHOOK_VERDICT_UNSPECIFIED: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_VALID: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_HEADER_INVALID: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_SIGNATURE_MISMATCH: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_TOO_OLD: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_TOO_NEW: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_BODY_INVALID: _ClassVar[WebhookVerdict]
    WEBHOOK_VERDICT_KEY_UNKNOWN: _ClassVar[WebhookVerdict]

class CloseReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSE_REASON_UNSPECIFIED: _ClassVar[CloseReason]
    CLOSE_REASON_CLOSED_BY_CALLER: _ClassVar[CloseReason]
    CLOSE_REASON_DISCONNECTED: _ClassVar[CloseReason]
    CLOSE_REASON_IDLE: _ClassVar[CloseReason]
    CLOSE_REASON_EXPIRED: _ClassVar[CloseReason]
    CLOSE_REASON_TOKEN_ENDED: _ClassVar[CloseReason]
    CLOSE_REASON_CREDENTIAL_GONE: _ClassVar[CloseReason]
    CLOSE_REASON_SERVER_STOPPING: _ClassVar[CloseReason]
    CLOSE_REASON_FAILED: _ClassVar[CloseReason]
    CLOSE_REASON_REVOCATIONS_UNKNOWN: _ClassVar[CloseReason]
    CLOSE_REASON_POLICY_CHANGED: _ClassVar[CloseReason]
    CLOSE_REASON_TOKEN_REVOKED: _ClassVar[CloseReason]
    CLOSE_REASON_CERTIFICATE_REVOKED: _ClassVar[CloseReason]
WEBHOOK_SCHEME_UNSPECIFIED: WebhookScheme
WEBHOOK_SCHEME_STRIPE: WebhookScheme
WEBHOOK_SCHEME_STANDARD_WEBHOOKS: WebhookScheme
WEBHOOK_SCHEME_PLAID: WebhookScheme
WEBHOOK_SCHEME_BRAINTREE: WebhookScheme
WEBHOOK_SCHEME_ADYEN: WebhookScheme
WEBHOOK_SCHEME_ADYEN_PLATFORM: WebhookScheme
WEBHOOK_SCHEME_GOCARDLESS: WebhookScheme
MAC_HASH_UNSPECIFIED: MacHash
MAC_HASH_SHA256: MacHash
MAC_HASH_SHA384: MacHash
MAC_HASH_SHA512: MacHash
WEBHOOK_VERDICT_UNSPECIFIED: WebhookVerdict
WEBHOOK_VERDICT_VALID: WebhookVerdict
WEBHOOK_VERDICT_HEADER_INVALID: WebhookVerdict
WEBHOOK_VERDICT_SIGNATURE_MISMATCH: WebhookVerdict
WEBHOOK_VERDICT_TOO_OLD: WebhookVerdict
WEBHOOK_VERDICT_TOO_NEW: WebhookVerdict
WEBHOOK_VERDICT_BODY_INVALID: WebhookVerdict
WEBHOOK_VERDICT_KEY_UNKNOWN: WebhookVerdict
CLOSE_REASON_UNSPECIFIED: CloseReason
CLOSE_REASON_CLOSED_BY_CALLER: CloseReason
CLOSE_REASON_DISCONNECTED: CloseReason
CLOSE_REASON_IDLE: CloseReason
CLOSE_REASON_EXPIRED: CloseReason
CLOSE_REASON_TOKEN_ENDED: CloseReason
CLOSE_REASON_CREDENTIAL_GONE: CloseReason
CLOSE_REASON_SERVER_STOPPING: CloseReason
CLOSE_REASON_FAILED: CloseReason
CLOSE_REASON_REVOCATIONS_UNKNOWN: CloseReason
CLOSE_REASON_POLICY_CHANGED: CloseReason
CLOSE_REASON_TOKEN_REVOKED: CloseReason
CLOSE_REASON_CERTIFICATE_REVOKED: CloseReason

class CredentialSelector(_message.Message):
    __slots__ = ("name", "version", "field_names")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    field_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., field_names: _Optional[_Iterable[str]] = ...) -> None: ...

class OpenedCredential(_message.Message):
    __slots__ = ("name", "version", "kind", "field_names")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    kind: str
    field_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., kind: _Optional[str] = ..., field_names: _Optional[_Iterable[str]] = ...) -> None: ...

class SessionServiceRevealRequest(_message.Message):
    __slots__ = ("credentials", "purpose", "recipient_key", "hpke_suite", "approval_id")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    HPKE_SUITE_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[CredentialSelector]
    purpose: str
    recipient_key: bytes
    hpke_suite: int
    approval_id: str
    def __init__(self, credentials: _Optional[_Iterable[_Union[CredentialSelector, _Mapping]]] = ..., purpose: _Optional[str] = ..., recipient_key: _Optional[bytes] = ..., hpke_suite: _Optional[int] = ..., approval_id: _Optional[str] = ...) -> None: ...

class SessionServiceRevealResponse(_message.Message):
    __slots__ = ("session_id", "credentials", "sealed")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    credentials: _containers.RepeatedCompositeFieldContainer[OpenedCredential]
    sealed: bytes
    def __init__(self, session_id: _Optional[str] = ..., credentials: _Optional[_Iterable[_Union[OpenedCredential, _Mapping]]] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class SessionServiceOpenRequest(_message.Message):
    __slots__ = ("operation_id", "start", "reveal", "verify_webhook", "close", "hmac", "verify_hmac", "totp", "answer_challenge", "sign", "http_call", "oauth_refresh", "link_token")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    VERIFY_WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    HMAC_FIELD_NUMBER: _ClassVar[int]
    VERIFY_HMAC_FIELD_NUMBER: _ClassVar[int]
    TOTP_FIELD_NUMBER: _ClassVar[int]
    ANSWER_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    HTTP_CALL_FIELD_NUMBER: _ClassVar[int]
    OAUTH_REFRESH_FIELD_NUMBER: _ClassVar[int]
    LINK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    operation_id: int
    start: SessionStart
    reveal: RevealOperation
    verify_webhook: VerifyWebhookOperation
    close: SessionClose
    hmac: HmacOperation
    verify_hmac: VerifyHmacOperation
    totp: TotpOperation
    answer_challenge: AnswerChallengeOperation
    sign: SignOperation
    http_call: HttpCallOperation
    oauth_refresh: OauthRefreshOperation
    link_token: LinkTokenOperation
    def __init__(self, operation_id: _Optional[int] = ..., start: _Optional[_Union[SessionStart, _Mapping]] = ..., reveal: _Optional[_Union[RevealOperation, _Mapping]] = ..., verify_webhook: _Optional[_Union[VerifyWebhookOperation, _Mapping]] = ..., close: _Optional[_Union[SessionClose, _Mapping]] = ..., hmac: _Optional[_Union[HmacOperation, _Mapping]] = ..., verify_hmac: _Optional[_Union[VerifyHmacOperation, _Mapping]] = ..., totp: _Optional[_Union[TotpOperation, _Mapping]] = ..., answer_challenge: _Optional[_Union[AnswerChallengeOperation, _Mapping]] = ..., sign: _Optional[_Union[SignOperation, _Mapping]] = ..., http_call: _Optional[_Union[HttpCallOperation, _Mapping]] = ..., oauth_refresh: _Optional[_Union[OauthRefreshOperation, _Mapping]] = ..., link_token: _Optional[_Union[LinkTokenOperation, _Mapping]] = ...) -> None: ...

class SessionStart(_message.Message):
    __slots__ = ("credentials", "purpose", "recipient_key", "hpke_suite", "ttl")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_KEY_FIELD_NUMBER: _ClassVar[int]
    HPKE_SUITE_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[CredentialSelector]
    purpose: str
    recipient_key: bytes
    hpke_suite: int
    ttl: _duration_pb2.Duration
    def __init__(self, credentials: _Optional[_Iterable[_Union[CredentialSelector, _Mapping]]] = ..., purpose: _Optional[str] = ..., recipient_key: _Optional[bytes] = ..., hpke_suite: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RevealOperation(_message.Message):
    __slots__ = ("name", "field_names")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., field_names: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifyWebhookOperation(_message.Message):
    __slots__ = ("name", "field_names", "scheme", "headers", "body", "apply_to", "connector")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    APPLY_TO_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_names: _containers.RepeatedScalarFieldContainer[str]
    scheme: WebhookScheme
    headers: _containers.ScalarMap[str, str]
    body: bytes
    apply_to: str
    connector: str
    def __init__(self, name: _Optional[str] = ..., field_names: _Optional[_Iterable[str]] = ..., scheme: _Optional[_Union[WebhookScheme, str]] = ..., headers: _Optional[_Mapping[str, str]] = ..., body: _Optional[bytes] = ..., apply_to: _Optional[str] = ..., connector: _Optional[str] = ...) -> None: ...

class HmacOperation(_message.Message):
    __slots__ = ("name", "field_name", "message", "hash", "raw", "context")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_name: str
    message: bytes
    hash: MacHash
    raw: bool
    context: str
    def __init__(self, name: _Optional[str] = ..., field_name: _Optional[str] = ..., message: _Optional[bytes] = ..., hash: _Optional[_Union[MacHash, str]] = ..., raw: _Optional[bool] = ..., context: _Optional[str] = ...) -> None: ...

class VerifyHmacOperation(_message.Message):
    __slots__ = ("name", "field_name", "message", "hash", "raw", "context", "mac")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_name: str
    message: bytes
    hash: MacHash
    raw: bool
    context: str
    mac: bytes
    def __init__(self, name: _Optional[str] = ..., field_name: _Optional[str] = ..., message: _Optional[bytes] = ..., hash: _Optional[_Union[MacHash, str]] = ..., raw: _Optional[bool] = ..., context: _Optional[str] = ..., mac: _Optional[bytes] = ...) -> None: ...

class TotpOperation(_message.Message):
    __slots__ = ("name", "field_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_name: str
    def __init__(self, name: _Optional[str] = ..., field_name: _Optional[str] = ...) -> None: ...

class AnswerChallengeOperation(_message.Message):
    __slots__ = ("name", "field_name", "challenge")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_name: str
    challenge: str
    def __init__(self, name: _Optional[str] = ..., field_name: _Optional[str] = ..., challenge: _Optional[str] = ...) -> None: ...

class SignOperation(_message.Message):
    __slots__ = ("name", "field_name", "jws", "client_assertion", "http", "raw")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    JWS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ASSERTION_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    name: str
    field_name: str
    jws: SignJws
    client_assertion: SignClientAssertion
    http: SignHttp
    raw: SignRaw
    def __init__(self, name: _Optional[str] = ..., field_name: _Optional[str] = ..., jws: _Optional[_Union[SignJws, _Mapping]] = ..., client_assertion: _Optional[_Union[SignClientAssertion, _Mapping]] = ..., http: _Optional[_Union[SignHttp, _Mapping]] = ..., raw: _Optional[_Union[SignRaw, _Mapping]] = ...) -> None: ...

class SignJws(_message.Message):
    __slots__ = ("payload", "header", "unencoded")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UNENCODED_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    header: str
    unencoded: bool
    def __init__(self, payload: _Optional[bytes] = ..., header: _Optional[str] = ..., unencoded: _Optional[bool] = ...) -> None: ...

class SignClientAssertion(_message.Message):
    __slots__ = ("audience", "client_id")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    audience: str
    client_id: str
    def __init__(self, audience: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...

class SignHttp(_message.Message):
    __slots__ = ("method", "target_uri", "headers", "components", "body", "label", "tag")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TARGET_URI_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    method: str
    target_uri: str
    headers: _containers.ScalarMap[str, str]
    components: _containers.RepeatedScalarFieldContainer[str]
    body: bytes
    label: str
    tag: str
    def __init__(self, method: _Optional[str] = ..., target_uri: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., components: _Optional[_Iterable[str]] = ..., body: _Optional[bytes] = ..., label: _Optional[str] = ..., tag: _Optional[str] = ...) -> None: ...

class SignRaw(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    def __init__(self, message: _Optional[bytes] = ...) -> None: ...

class HttpCallOperation(_message.Message):
    __slots__ = ("name", "connector", "method", "path", "host", "query", "headers", "body", "also_name", "capture_name")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ALSO_NAME_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    connector: str
    method: str
    path: str
    host: str
    query: _containers.RepeatedCompositeFieldContainer[QueryParameter]
    headers: _containers.ScalarMap[str, str]
    body: bytes
    also_name: str
    capture_name: str
    def __init__(self, name: _Optional[str] = ..., connector: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., host: _Optional[str] = ..., query: _Optional[_Iterable[_Union[QueryParameter, _Mapping]]] = ..., headers: _Optional[_Mapping[str, str]] = ..., body: _Optional[bytes] = ..., also_name: _Optional[str] = ..., capture_name: _Optional[str] = ...) -> None: ...

class QueryParameter(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class OauthRefreshOperation(_message.Message):
    __slots__ = ("name", "client_name", "connector")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    client_name: str
    connector: str
    def __init__(self, name: _Optional[str] = ..., client_name: _Optional[str] = ..., connector: _Optional[str] = ...) -> None: ...

class LinkTokenOperation(_message.Message):
    __slots__ = ("name", "connector", "also_name", "client_user_id", "client_name", "language", "country_codes", "redirect_uri")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    ALSO_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_USER_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_CODES_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_URI_FIELD_NUMBER: _ClassVar[int]
    name: str
    connector: str
    also_name: str
    client_user_id: str
    client_name: str
    language: str
    country_codes: _containers.RepeatedScalarFieldContainer[str]
    redirect_uri: str
    def __init__(self, name: _Optional[str] = ..., connector: _Optional[str] = ..., also_name: _Optional[str] = ..., client_user_id: _Optional[str] = ..., client_name: _Optional[str] = ..., language: _Optional[str] = ..., country_codes: _Optional[_Iterable[str]] = ..., redirect_uri: _Optional[str] = ...) -> None: ...

class SessionClose(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionServiceOpenResponse(_message.Message):
    __slots__ = ("operation_id", "opened", "reveal", "verify_webhook", "error", "expiring", "credential_changed", "closed", "hmac", "verify_hmac", "totp", "answer_challenge", "sign", "http_call", "oauth_refresh", "revoked", "link_token")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    VERIFY_WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPIRING_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    HMAC_FIELD_NUMBER: _ClassVar[int]
    VERIFY_HMAC_FIELD_NUMBER: _ClassVar[int]
    TOTP_FIELD_NUMBER: _ClassVar[int]
    ANSWER_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    HTTP_CALL_FIELD_NUMBER: _ClassVar[int]
    OAUTH_REFRESH_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    LINK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    operation_id: int
    opened: SessionOpened
    reveal: RevealResult
    verify_webhook: VerifyWebhookResult
    error: OperationError
    expiring: SessionExpiring
    credential_changed: CredentialChanged
    closed: SessionClosed
    hmac: HmacResult
    verify_hmac: VerifyHmacResult
    totp: TotpResult
    answer_challenge: AnswerChallengeResult
    sign: SignResult
    http_call: HttpCallResult
    oauth_refresh: OauthRefreshResult
    revoked: SessionRevoked
    link_token: LinkTokenResult
    def __init__(self, operation_id: _Optional[int] = ..., opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., reveal: _Optional[_Union[RevealResult, _Mapping]] = ..., verify_webhook: _Optional[_Union[VerifyWebhookResult, _Mapping]] = ..., error: _Optional[_Union[OperationError, _Mapping]] = ..., expiring: _Optional[_Union[SessionExpiring, _Mapping]] = ..., credential_changed: _Optional[_Union[CredentialChanged, _Mapping]] = ..., closed: _Optional[_Union[SessionClosed, _Mapping]] = ..., hmac: _Optional[_Union[HmacResult, _Mapping]] = ..., verify_hmac: _Optional[_Union[VerifyHmacResult, _Mapping]] = ..., totp: _Optional[_Union[TotpResult, _Mapping]] = ..., answer_challenge: _Optional[_Union[AnswerChallengeResult, _Mapping]] = ..., sign: _Optional[_Union[SignResult, _Mapping]] = ..., http_call: _Optional[_Union[HttpCallResult, _Mapping]] = ..., oauth_refresh: _Optional[_Union[OauthRefreshResult, _Mapping]] = ..., revoked: _Optional[_Union[SessionRevoked, _Mapping]] = ..., link_token: _Optional[_Union[LinkTokenResult, _Mapping]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("session_id", "sealed_session_key", "credentials", "expire_time")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEALED_SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    sealed_session_key: bytes
    credentials: _containers.RepeatedCompositeFieldContainer[OpenedCredential]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., sealed_session_key: _Optional[bytes] = ..., credentials: _Optional[_Iterable[_Union[OpenedCredential, _Mapping]]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevealResult(_message.Message):
    __slots__ = ("counter", "sealed", "name", "version", "field_names")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAMES_FIELD_NUMBER: _ClassVar[int]
    counter: int
    sealed: bytes
    name: str
    version: int
    field_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, counter: _Optional[int] = ..., sealed: _Optional[bytes] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., field_names: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifyWebhookResult(_message.Message):
    __slots__ = ("verdict", "matched_field_name", "standing_set")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    STANDING_SET_FIELD_NUMBER: _ClassVar[int]
    verdict: WebhookVerdict
    matched_field_name: str
    standing_set: bool
    def __init__(self, verdict: _Optional[_Union[WebhookVerdict, str]] = ..., matched_field_name: _Optional[str] = ..., standing_set: _Optional[bool] = ...) -> None: ...

class HmacResult(_message.Message):
    __slots__ = ("mac",)
    MAC_FIELD_NUMBER: _ClassVar[int]
    mac: bytes
    def __init__(self, mac: _Optional[bytes] = ...) -> None: ...

class VerifyHmacResult(_message.Message):
    __slots__ = ("valid",)
    VALID_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    def __init__(self, valid: _Optional[bool] = ...) -> None: ...

class TotpResult(_message.Message):
    __slots__ = ("code", "seconds_left")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    code: str
    seconds_left: int
    def __init__(self, code: _Optional[str] = ..., seconds_left: _Optional[int] = ...) -> None: ...

class AnswerChallengeResult(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: str
    def __init__(self, response: _Optional[str] = ...) -> None: ...

class SignResult(_message.Message):
    __slots__ = ("algorithm", "kid", "signature", "compact", "headers")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    COMPACT_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    kid: str
    signature: bytes
    compact: str
    headers: _containers.ScalarMap[str, str]
    def __init__(self, algorithm: _Optional[str] = ..., kid: _Optional[str] = ..., signature: _Optional[bytes] = ..., compact: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ...) -> None: ...

class HttpCallResult(_message.Message):
    __slots__ = ("status", "headers", "body", "captured_name", "captured_version")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_NAME_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_VERSION_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.ScalarMap[str, str]
    body: bytes
    captured_name: str
    captured_version: int
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Mapping[str, str]] = ..., body: _Optional[bytes] = ..., captured_name: _Optional[str] = ..., captured_version: _Optional[int] = ...) -> None: ...

class OauthRefreshResult(_message.Message):
    __slots__ = ("version", "refreshed", "expire_time")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    version: int
    refreshed: bool
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., refreshed: _Optional[bool] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LinkTokenResult(_message.Message):
    __slots__ = ("link_token", "expire_time")
    LINK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    link_token: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, link_token: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class OperationError(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SessionExpiring(_message.Message):
    __slots__ = ("expire_time",)
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CredentialChanged(_message.Message):
    __slots__ = ("name", "latest_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    latest_version: int
    def __init__(self, name: _Optional[str] = ..., latest_version: _Optional[int] = ...) -> None: ...

class SessionRevoked(_message.Message):
    __slots__ = ("reason", "name")
    REASON_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    reason: CloseReason
    name: str
    def __init__(self, reason: _Optional[_Union[CloseReason, str]] = ..., name: _Optional[str] = ...) -> None: ...

class SessionClosed(_message.Message):
    __slots__ = ("reason", "reveals", "uses", "buffers", "buffers_wiped", "duration")
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVEALS_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_WIPED_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    reason: CloseReason
    reveals: int
    uses: int
    buffers: int
    buffers_wiped: int
    duration: _duration_pb2.Duration
    def __init__(self, reason: _Optional[_Union[CloseReason, str]] = ..., reveals: _Optional[int] = ..., uses: _Optional[int] = ..., buffers: _Optional[int] = ..., buffers_wiped: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
