"""A service that runs for long while its certificate is renewed: the files change, the client goes on."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import json
import secrets
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault.client import AsyncClient, Client, Profile
from vault.client.profile import Shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.vault import VaultSite

EXTENSIONS = client_extensions(f"spiffe://{TRUST_DOMAIN}/payments")


@pytest.fixture
def site(shared_sites: Callable[[str], VaultSite]) -> VaultSite:
    return shared_sites("sqlite")


@pytest.fixture
def renew(site: VaultSite, tmp_path: Path) -> Callable[..., Profile]:
    """Puts another certificate and key where the profile's files are; both, or one of them."""

    def write(seconds: int = 3600, *, only: str = "") -> Profile:
        made = f"renewed-{secrets.token_hex(4)}"
        issue_certificate(site.folder / "pki", made, EXTENSIONS, life=datetime.timedelta(seconds=seconds))
        for suffix in (".pem", "-key.pem"):
            if only in ("", suffix):
                shutil.move(site.folder / f"pki/{made}{suffix}", tmp_path / f"own{suffix}")
        return dataclasses.replace(
            site.profile("payments"),
            certificate_file=tmp_path / "own.pem",
            private_key_file=tmp_path / "own-key.pem",
        )

    return write


def bound_to(client: Client) -> str:
    """The thumbprint of the certificate that the client's token is bound to (RFC 8705)."""
    token = client._access._token
    assert token is not None
    claims = token.token.split(".")[1]
    thumbprint: str = json.loads(base64.urlsafe_b64decode(claims + "=="))["cnf"]["x5t#S256"]
    return thumbprint


async def test_calls_sessions_and_watches_go_on_when_the_certificate_has_ended(
    site: VaultSite, renew: Callable[..., Profile]
) -> None:
    name = f"acme/renewal/{secrets.token_hex(6)}"
    profile = renew(6)
    ended = asyncio.get_running_loop().time() + 7
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def watch(client: AsyncClient) -> None:
        async for change in client.watch(name):
            await seen.put(change.change)

    with Client(profile) as client:
        async with AsyncClient(profile) as other:
            watching = asyncio.create_task(watch(other))
            await asyncio.to_thread(client.put, name, {"api_key": "k"}, kind="api_key")
            await asyncio.sleep(1)
            renew()
            await asyncio.sleep(ended - asyncio.get_running_loop().time())
            assert await seen.get()
            assert seen.empty()
            await asyncio.to_thread(client.put, name, {"api_key": "l"}, kind="api_key")
            async with other.session(name, purpose="test") as session:
                assert (await session.reveal()).text("api_key") == "l"
            async with asyncio.timeout(10):
                assert await seen.get()
            assert not watching.done()
            watching.cancel()
        assert bound_to(client) == profile.thumbprint()


def test_a_token_is_issued_for_the_newest_certificate(site: VaultSite, renew: Callable[..., Profile]) -> None:
    profile = renew()
    with Client(profile) as client:
        for _ in range(4):
            client.list_credentials("acme/renewal")
            assert bound_to(client) == profile.thumbprint()
            renew()
            client._access._renew_time = 0.0
        assert len(client._channels) == 2, "no more connections are kept than are needed"


def test_files_that_do_not_fit_together_yet_are_left_for_the_next_time(renew: Callable[..., Profile]) -> None:
    shown = Shown(renew())
    assert not shown.renewed()
    renew(only=".pem")
    assert not shown.renewed()
    profile = renew()
    assert shown.renewed()
    assert not shown.renewed()
    profile.certificate_file.unlink()
    assert not shown.renewed()
