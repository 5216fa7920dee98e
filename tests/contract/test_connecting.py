"""The way to PostgreSQL: by TLS that verifies if the URL says so; and why there is none, in words that help."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
import trustme
from sqlalchemy import text

from tests.integration.wire import until
from tests.support.postgres import SERVER, free_port
from vault.errors import EX_CONFIG, EX_TEMPFAIL, StartError
from vault.store.engine import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

TLS = """
SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()
"""


@pytest.fixture(scope="module")
def authority(postgres: Postgres) -> Iterator[trustme.CA]:
    """The CA of the database's certificate, which names `localhost` and no address."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    postgres.offer_tls(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())
    until(lambda: postgres.sql("postgres", "SHOW ssl") == "on")
    yield ca
    postgres.sql("postgres", "ALTER SYSTEM RESET ssl")
    postgres.sql("postgres", "SELECT pg_reload_conf()")


@pytest.fixture
def name(postgres: Postgres) -> str:
    name = f"tls_{secrets.token_hex(6)}"
    postgres.create_database(name)
    return name


async def refused(url: str) -> StartError:
    database = connect(url)
    try:
        with pytest.raises(StartError) as caught:
            await database.check()
    finally:
        await database.close()
    return caught.value


def trust(authority: trustme.CA, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    monkeypatch.setenv("PGSSLROOTCERT", str(folder / "ca.pem"))


async def test_a_url_that_asks_for_it_is_reached_by_tls_that_verifies(
    postgres: Postgres, name: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(authority, tmp_path, monkeypatch)
    url = f"postgresql://{SERVER}@localhost:{postgres.port}/{name}?ssl=verify-full"
    database = connect(url)
    try:
        await database.check()
        async with database.read() as connection:
            assert (await connection.execute(text(TLS))).scalar_one() is True
        alone = await database.connect_alone()
        assert await alone.fetchval(TLS) is True, "the connection that listens too"
        await alone.close()
    finally:
        await database.close()


async def test_a_certificate_that_does_not_verify_is_told_with_where_the_ca_comes_from(
    postgres: Postgres, name: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://{SERVER}@localhost:{postgres.port}/{name}?ssl=verify-full"
    trust(trustme.CA(), tmp_path, monkeypatch)
    told = await refused(url)
    assert "unable to get local issuer certificate" in str(told)
    assert "PGSSLROOTCERT" in str(told)
    assert told.exit_code == EX_CONFIG
    trust(authority, tmp_path, monkeypatch)
    told = await refused(url.replace("localhost", "127.0.0.1"))
    assert "not valid for '127.0.0.1'" in str(told)


async def test_a_ca_that_is_not_there_is_told(
    postgres: Postgres, name: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://{SERVER}@localhost:{postgres.port}/{name}?ssl=verify-full"
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "root.crt" in str(await refused(url))
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "absent.pem"))
    with pytest.raises(StartError, match=r"PGSSLROOTCERT names .*absent\.pem, which cannot be read"):
        connect(url)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sslmode=verify-full", "unknown option sslmode; there is one, ssl="),
        ("ssl=verify_full", "ssl must be one of disable,"),
        ("ssl=disable&ssl=require", "ssl must be one of disable,"),
        ("password=open-sesame", "unknown option password"),
        ("ssl=require&host=elsewhere", "unknown option host"),
    ],
)
def test_an_option_that_the_driver_would_stumble_on_is_named_and_its_value_is_not(
    query: str, told: str
) -> None:
    with pytest.raises(StartError) as caught:
        connect(f"postgresql://{SERVER}@localhost/vault?{query}", key="database.owner_url")
    assert str(caught.value).startswith(f"database.owner_url: {told}")
    assert "sesame" not in str(caught.value)


async def test_what_postgresql_says_to_a_refused_connection_is_told(postgres: Postgres, name: str) -> None:
    told = await refused(postgres.url(f"no_{name}"))
    assert f'database "no_{name}" does not exist' in str(told)
    assert told.exit_code == EX_CONFIG


async def test_a_database_that_is_away_or_has_no_room_may_be_tried_again(
    postgres: Postgres, name: str
) -> None:
    away = await refused(f"postgresql://{SERVER}@127.0.0.1:{free_port()}/{name}")
    postgres.sql("postgres", f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    full = await refused(postgres.url(name))
    assert (away.exit_code, full.exit_code) == (EX_TEMPFAIL, EX_TEMPFAIL)
    assert "too many connections" in str(full)
