"""The table of uses: what each needs to be allowed, and what does it."""

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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vault.core.uses.material import Done, Material, Surroundings


class Use(NamedTuple):
    """The scope's action that a use needs, and the function that does it."""

    action: str
    run: Callable[[Material, Any, Surroundings], Awaitable[Done]]
    reaches_out: bool = False
    """Whether a provider hears of it: then the log says so before and after."""


USES: dict[type, Use] = {
    macs.Hmac: Use("session.use.hmac", macs.make),
    macs.RawHmac: Use("session.use.hmac_raw", macs.make),
    macs.VerifyHmac: Use("session.use.verify_hmac", macs.verify),
    totp.Totp: Use("session.use.totp", totp.make),
    verify_webhook.VerifyWebhook: Use("session.use.verify_webhook", verify_webhook.run),
    answer_challenge.AnswerChallenge: Use("session.use.answer_challenge", answer_challenge.run),
    sign.SignJws: Use("session.use.sign_jws", sign.jws),
    sign.ClientAssertion: Use("session.use.client_assertion", sign.client_assertion),
    sign.SignHttp: Use("session.use.sign_http", sign.http),
    sign.SignRaw: Use("session.use.sign_raw", sign.raw),
    http_call.HttpCall: Use("session.use.http_call", http_call.run, reaches_out=True),
    oauth_refresh.OauthRefresh: Use(oauth_refresh.ACTION, oauth_refresh.run, reaches_out=True),
    link_token.LinkToken: Use("session.use.link_token", link_token.run, reaches_out=True),
}
"""By the class of the request."""

ACTIONS = tuple(use.action for use in USES.values())
