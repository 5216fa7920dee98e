"""The uses of a session, from protobuf and back: one entry an operation, by its name in the proto."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core.uses import (
    answer_challenge,
    http_call,
    link_token,
    macs,
    oauth_refresh,
    sign,
    totp,
    verify_webhook,
)
from vault.core.uses.webhooks.verdict import Verdict
from vault.errors import invalid_field
from vault.server import wire
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message


_SCHEMES = {
    pb.WEBHOOK_SCHEME_STRIPE: verify_webhook.Scheme.STRIPE,
    pb.WEBHOOK_SCHEME_STANDARD_WEBHOOKS: verify_webhook.Scheme.STANDARD_WEBHOOKS,
    pb.WEBHOOK_SCHEME_PLAID: verify_webhook.Scheme.PLAID,
    pb.WEBHOOK_SCHEME_BRAINTREE: verify_webhook.Scheme.BRAINTREE,
    pb.WEBHOOK_SCHEME_ADYEN: verify_webhook.Scheme.ADYEN,
    pb.WEBHOOK_SCHEME_ADYEN_PLATFORM: verify_webhook.Scheme.ADYEN_PLATFORM,
    pb.WEBHOOK_SCHEME_GOCARDLESS: verify_webhook.Scheme.GOCARDLESS,
}
_VERDICTS = {
    Verdict.VALID: pb.WEBHOOK_VERDICT_VALID,
    Verdict.HEADER_INVALID: pb.WEBHOOK_VERDICT_HEADER_INVALID,
    Verdict.SIGNATURE_MISMATCH: pb.WEBHOOK_VERDICT_SIGNATURE_MISMATCH,
    Verdict.TOO_OLD: pb.WEBHOOK_VERDICT_TOO_OLD,
    Verdict.TOO_NEW: pb.WEBHOOK_VERDICT_TOO_NEW,
    Verdict.BODY_INVALID: pb.WEBHOOK_VERDICT_BODY_INVALID,
    Verdict.KEY_UNKNOWN: pb.WEBHOOK_VERDICT_KEY_UNKNOWN,
}
_HASHES = {
    pb.MAC_HASH_UNSPECIFIED: macs.MacHash.SHA256,
    pb.MAC_HASH_SHA256: macs.MacHash.SHA256,
    pb.MAC_HASH_SHA384: macs.MacHash.SHA384,
    pb.MAC_HASH_SHA512: macs.MacHash.SHA512,
}


class Operation(NamedTuple):
    """How an operation's message becomes a request, and its result a message."""

    request: Callable[[Any], object]
    result: Callable[[Any], Message]
    also: Callable[[Any], str] = lambda _operation: ""


def _verify_webhook(operation: pb.VerifyWebhookOperation) -> verify_webhook.VerifyWebhook:
    scheme = _SCHEMES.get(operation.scheme)
    if scheme is None:
        raise invalid_field("scheme", "is required, and must be one that the vault knows")
    return verify_webhook.VerifyWebhook(
        tuple(operation.field_names),
        scheme,
        dict(operation.headers),
        operation.body,
        operation.apply_to,
        operation.connector,
    )


def _verification(result: verify_webhook.Verified) -> pb.VerifyWebhookResult:
    verification = result.verification
    return pb.VerifyWebhookResult(
        verdict=_VERDICTS[verification.verdict],
        matched_field_name=verification.field_name,
        standing_set=result.standing_set,
    )


def _hmac(operation: pb.HmacOperation | pb.VerifyHmacOperation) -> macs.Hmac | macs.RawHmac:
    hash_ = _HASHES.get(operation.hash)
    if hash_ is None:
        raise invalid_field("hash", "must be one that the vault knows")
    if not operation.raw:
        return macs.Hmac(operation.field_name, operation.message, hash_, operation.context)
    if operation.context:
        raise invalid_field("context", "does not go with raw")
    return macs.RawHmac(operation.field_name, operation.message, hash_)


def _sign(operation: pb.SignOperation) -> object:
    field_name, asked = operation.field_name, operation.WhichOneof("format")
    if asked == "jws":
        return sign.SignJws(
            field_name, operation.jws.payload, operation.jws.header, unencoded=operation.jws.unencoded
        )
    if asked == "client_assertion":
        assertion = operation.client_assertion
        return sign.ClientAssertion(field_name, assertion.audience, assertion.client_id)
    if asked == "http":
        http = operation.http
        return sign.SignHttp(
            field_name,
            http.method,
            http.target_uri,
            dict(http.headers),
            tuple(http.components),
            http.body if http.HasField("body") else None,
            http.label or "sig1",
            http.tag,
        )
    if asked == "raw":
        return sign.SignRaw(field_name, operation.raw.message)
    raise invalid_field("format", "is required")


def _signed(signed: sign.Signed) -> pb.SignResult:
    return pb.SignResult(
        algorithm=signed.algorithm,
        kid=signed.kid,
        signature=signed.signature,
        compact=signed.compact,
        headers=dict(signed.headers),
    )


def _http_call(operation: pb.HttpCallOperation) -> http_call.HttpCall:
    return http_call.HttpCall(
        connector=operation.connector,
        method=operation.method,
        path=operation.path,
        host=operation.host,
        query=tuple((pair.name, pair.value) for pair in operation.query),
        headers=dict(operation.headers),
        body=operation.body,
        also=operation.also_name,
        capture_name=operation.capture_name,
    )


def _http_answer(answer: http_call.HttpAnswer) -> pb.HttpCallResult:
    return pb.HttpCallResult(
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        captured_name=answer.captured_name,
        captured_version=answer.captured_version,
    )


def _refreshed(refreshed: oauth_refresh.Refreshed) -> pb.OauthRefreshResult:
    result = pb.OauthRefreshResult(version=refreshed.version, refreshed=refreshed.refreshed)
    if refreshed.expires_at:
        result.expire_time.FromSeconds(refreshed.expires_at)
    return result


def _link_token(operation: pb.LinkTokenOperation) -> link_token.LinkToken:
    return link_token.LinkToken(
        operation.connector,
        operation.client_user_id,
        operation.client_name,
        operation.language or "en",
        tuple(operation.country_codes),
        operation.redirect_uri,
        operation.also_name,
    )


def _minted(minted: link_token.Minted) -> pb.LinkTokenResult:
    return pb.LinkTokenResult(link_token=minted.link_token, expire_time=wire.timestamp(minted.expire_time))


OPERATIONS: dict[str, Operation] = {
    "verify_webhook": Operation(_verify_webhook, _verification),
    "hmac": Operation(_hmac, lambda mac: pb.HmacResult(mac=mac)),
    "verify_hmac": Operation(
        lambda operation: macs.VerifyHmac(_hmac(operation), operation.mac),
        lambda valid: pb.VerifyHmacResult(valid=valid),
    ),
    "totp": Operation(
        lambda operation: totp.Totp(operation.field_name),
        lambda code: pb.TotpResult(code=code.code, seconds_left=code.seconds_left),
    ),
    "answer_challenge": Operation(
        lambda operation: answer_challenge.AnswerChallenge(operation.field_name, operation.challenge),
        lambda answer: pb.AnswerChallengeResult(response=answer),
    ),
    "sign": Operation(_sign, _signed),
    "http_call": Operation(_http_call, _http_answer, lambda operation: operation.also_name),
    "oauth_refresh": Operation(
        lambda operation: oauth_refresh.OauthRefresh(operation.connector, operation.client_name),
        _refreshed,
        lambda operation: operation.client_name,
    ),
    "link_token": Operation(_link_token, _minted, lambda operation: operation.also_name),
}
