"""The SDK: what a service imports to keep its secrets in Strongroom.

    from vault.client import Client, Profile

    with Client(Profile.load("payments.toml")) as client:
        client.put("acme/stripe/live", {"api_key": key}, kind="stripe_account")
        with client.session("acme/stripe/live", purpose="payout") as session:
            secrets = session.reveal("api_key")
            use(secrets["api_key"])          # a view of locked memory
        # here it is wiped

`AsyncClient` is the same with `await`. Sealing, opening, tokens and safe retries happen unseen.
"""

from vault.client.aio import AsyncClient, AsyncSession
from vault.client.errors import SessionClosedError, StrongroomError
from vault.client.narrowing import narrow_token
from vault.client.profile import Profile
from vault.client.secrets import Secrets
from vault.client.sync import Client, Session

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "Client",
    "Profile",
    "Secrets",
    "Session",
    "SessionClosedError",
    "StrongroomError",
    "narrow_token",
]
