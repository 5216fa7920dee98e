"""Where keys lie: wrapped in the database, mirrored in two HSMs, moved from one to the other, on a running vault."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hsm.softhsm import config_file, init_token
from tests.integration.wire import until
from tests.support.vault import VaultSite
from vault.client import StrongroomError
from vault.client.health import check, look
from vault.v1 import job_pb2, key_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vault.client import Client

WRAPPED = key_pb2.KeyHomes(placement=key_pb2.KEY_PLACEMENT_WRAPPED)
BOTH = key_pb2.KeyHomes(backends=["first", "second"])
POLICY = 'permit (principal, action, resource) when { principal.path == "operator" };'
TENANTS = 12
CACHED = 4


class TwoTokens:
    """A vault on two SoftHSM tokens, either of which can be taken away and given back."""

    def __init__(self, folder: Path, url: str = "sqlite:///strongroom.db") -> None:
        self._aside = folder / "aside"
        self._aside.mkdir()
        softhsm = folder / "softhsm"
        self.uris = [init_token(softhsm, name, folder / f"{name}-pin") for name in ("first", "second")]
        self._tokens = softhsm / "tokens"
        settings: dict[str, dict[str, object]] = {
            "hsm": {"cached_keys": CACHED, "wait_seconds": 1.0},
            "second_hsm": {"uri": self.uris[1], "cached_keys": CACHED, "wait_seconds": 1.0},
        }
        self.site = VaultSite(folder / "vault", url, self.uris[0], config_file(softhsm), settings)

    def take(self, number: int) -> None:
        serial = self.uris[number].partition("serial=")[2].partition("?")[0]
        (place,) = [path for path in self._tokens.iterdir() if path.name.replace("-", "").endswith(serial)]
        shutil.move(place, self._aside / place.name)

    def objects(self) -> list[Path]:
        """Everything that lies in the two, a file each."""
        return list(self._tokens.glob("*/*.object"))

    def give_back(self) -> None:
        for place in list(self._aside.iterdir()):
            shutil.move(place, self._tokens / place.name)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoTokens]:
    kept = os.environ.get("SOFTHSM2_CONF")
    two = TwoTokens(tmp_path_factory.mktemp("homes"))
    two.site.prepare()
    (two.site.folder / "policy.cedar").write_text(POLICY)
    if kept is not None:
        os.environ["SOFTHSM2_CONF"] = kept
    two.site.start()
    yield two
    if two.site.process is not None and two.site.process.poll() is None:
        two.site.stop()


@pytest.fixture(scope="module")
def site(tokens: TwoTokens) -> VaultSite:
    return tokens.site


def ready(site: VaultSite) -> bool:
    try:
        return check(site.profile("operator"), timeout=1)[0]
    except StrongroomError:
        return False


def restarted(site: VaultSite) -> None:
    """Nothing is remembered of what the database said before."""
    before = site.worker_pids()
    site.kill_workers()
    until(lambda: set(site.worker_pids()).isdisjoint(before) and ready(site), 30)


def tenant(site: VaultSite, name: str, homes: key_pb2.KeyHomes | None = None) -> key_pb2.Key:
    with site.system() as system:
        return system.create_tenant(name, homes=homes)


def put(site: VaultSite, name: str, value: bytes) -> None:
    with client(site, name) as writer:
        writer.put(name, {"k": value}, kind="generic")


def revealed(site: VaultSite, name: str) -> bytes:
    with client(site, name) as reader:
        (found,) = reader.reveal(name, purpose="test")
        with found:
            return bytes(found["k"])


def client(site: VaultSite, name: str) -> Client:
    owner = name.partition("/")[0]
    scopes = tuple(
        f"{action}:{owner}/**" for action in ("credential.write", "credential.read", "session.reveal")
    )
    return site.client("operator", owner, scopes)


def operator(site: VaultSite, owner: str) -> Client:
    keys = ("key.rotate", "key.read", "key.rewrap")
    return site.client("operator", owner, tuple(f"{action}:{owner}/keys" for action in keys))


def command(site: VaultSite, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "vault.cli",
            *arguments,
            "--config",
            str(site.config_file),
            "--output",
            "json",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def query(site: VaultSite, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(site.folder / "strongroom.db")) as database, database:
        return database.execute(statement, values).fetchall()


def rewrap(site: VaultSite, owner: str) -> job_pb2.RewrapJob:
    with operator(site, owner) as steering:
        job = steering.start_job(owner, "rewrap")
        for seen in steering.watch_job(owner, job.job_id):
            job = seen
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    return job


# -- keys that lie in the database -------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(site: VaultSite) -> list[str]:
    names = [f"acme{number:02}" for number in range(TENANTS)]
    with site.system() as system:
        for name in names:
            assert system.create_tenant(name, homes=WRAPPED).placement == key_pb2.KEY_PLACEMENT_WRAPPED
    return names


def test_more_tenants_than_keys_fit_into_the_hsm_at_once(site: VaultSite, many: list[str]) -> None:
    for name in many:
        put(site, f"{name}/a", name.encode())
    for name in reversed(many):
        assert revealed(site, f"{name}/a") == name.encode()


def test_a_wrapped_key_rotates_as_a_wrapped_key(site: VaultSite, many: list[str]) -> None:
    with operator(site, many[0]) as steering:
        new = steering.rotate_key(many[0])
        assert (new.version, new.placement) == (2, key_pb2.KEY_PLACEMENT_WRAPPED)
        described = steering.describe_key(many[0])
        assert described.sensitive
        assert not described.extractable
    assert revealed(site, f"{many[0]}/a") == many[0].encode()


def test_a_tenant_leaves_the_hsm_and_comes_back(site: VaultSite) -> None:
    tenant(site, "globex")
    put(site, "globex/a", b"moving")
    for placement in (key_pb2.KEY_PLACEMENT_WRAPPED, key_pb2.KEY_PLACEMENT_TOKEN):
        with operator(site, "globex") as steering:
            assert (
                steering.rotate_key("globex", homes=key_pb2.KeyHomes(placement=placement)).placement
                == placement
            )
        assert rewrap(site, "globex").done == 1
        assert revealed(site, "globex/a") == b"moving"


def test_a_new_root_takes_every_wrapped_key_while_the_vault_works(site: VaultSite, many: list[str]) -> None:
    wrapped = query(site, "SELECT count(*) FROM key_homes WHERE root_version != 0")[0][0]
    done = command(site, "keys", "rotate-root")
    assert done == {"root_version": 2, "rewrapped": wrapped}
    assert query(site, "SELECT DISTINCT root_version FROM key_homes WHERE root_version != 0") == [(2,)]
    for name in many:
        assert revealed(site, f"{name}/a") == name.encode()
        put(site, f"{name}/b", b"new")
    assert command(site, "keys", "rotate-root", "--resume") == {"root_version": 2, "rewrapped": 0}


def test_a_wrapped_key_that_was_swapped_in_the_database_is_noticed(site: VaultSite, many: list[str]) -> None:
    put(site, f"{many[1]}/a", many[1].encode())
    one, other = (
        query(site, f"SELECT wrapped FROM key_homes WHERE tenant = '{name}' AND version = 1")[0][0]
        for name in many[1:3]
    )
    query(site, "UPDATE key_homes SET wrapped = ? WHERE tenant = ?", other, many[1])
    restarted(site)
    with pytest.raises(StrongroomError) as caught:
        revealed(site, f"{many[1]}/a")
    assert caught.value.reason == "STORED_DATA_DAMAGED"
    query(site, "UPDATE key_homes SET wrapped = ? WHERE tenant = ?", one, many[1])
    restarted(site)
    assert revealed(site, f"{many[1]}/a") == many[1].encode()


# -- two HSMs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", [key_pb2.KEY_PLACEMENT_TOKEN, key_pb2.KEY_PLACEMENT_WRAPPED])
def test_the_loss_of_either_hsm_loses_nothing(tokens: TwoTokens, placement: int) -> None:
    site, owner = tokens.site, f"mirror{placement}"
    tenant(site, owner)
    put(site, f"{owner}/before", b"before")
    with operator(site, owner) as steering:
        homes = key_pb2.KeyHomes(placement=placement, backends=BOTH.backends)
        assert len(steering.rotate_key(owner, homes=homes).backends) == 2
    assert rewrap(site, owner).done == 1
    put(site, f"{owner}/after", b"after")
    kept: list[str] = []
    with client(site, f"{owner}/a") as held:
        held.put(f"{owner}/b", {"k": b"b"}, kind="generic")  # its token is issued while both are there
        for number in (0, 1):
            tokens.take(number)
            try:
                for name in ("before", "after"):
                    (found,) = held.reveal(f"{owner}/{name}", purpose="test")
                    with found:
                        assert bytes(found["k"]) == name.encode()
                together = held.reveal(f"{owner}/before", f"{owner}/after", purpose="test")
                assert [bytes(found["k"]) for found in together] == [b"before", b"after"]
                kept.extend(
                    written(held, f"{owner}/{number}", token=placement == key_pb2.KEY_PLACEMENT_TOKEN)
                )
            finally:
                tokens.give_back()

            until(lambda: written(held, f"{owner}/again"), 30)
    for name in (*kept, f"{owner}/again"):
        assert revealed(site, name) == b"written"


def written(writer: Client, name: str, *, token: bool = False) -> list[str]:
    """What was written: a mirrored tenant's write needs both HSMs. What was not is refused, and no more than that.

    SoftHSM goes on with keys that it holds as session objects when their token is gone, so only a token object is
    certain to be refused.
    """
    try:
        writer.put(name, {"k": b"written"}, kind="generic")
    except StrongroomError as error:
        assert error.reason in ("HSM_UNAVAILABLE", "OVERLOADED")
        return []
    assert not token
    return [name]


def test_a_tenant_moves_to_the_other_hsm_and_no_longer_needs_the_first(tokens: TwoTokens) -> None:
    site = tokens.site
    tenant(site, "acme")
    for number in range(5):
        put(site, f"acme/{number}", b"%d" % number)
    with operator(site, "acme") as steering:
        first = steering.list_keys("acme")[0].backend
        moved = steering.rotate_key("acme", homes=key_pb2.KeyHomes(backends=["second"]))
        assert moved.backend != first
    assert rewrap(site, "acme").done == 5
    with client(site, "acme/a") as held:
        held.put("acme/b", {"k": b"b"}, kind="generic")  # its token is issued while both are there
        tokens.take(0)
        try:
            for number in range(5):
                (found,) = held.reveal(f"acme/{number}", purpose="test")
                with found:
                    assert bytes(found["k"]) == b"%d" % number
        finally:
            tokens.give_back()


def test_a_vault_starts_without_its_second_hsm_and_takes_it_when_it_comes(tokens: TwoTokens) -> None:
    site = tokens.site
    assert site.stop() == 0
    tokens.take(1)
    try:
        site.start()
        assert revealed(site, "mirror1/after") == b"after"
        with pytest.raises(StrongroomError):
            put(site, "mirror1/x", b"x")
        readiness = look(site.profile("operator"))
        assert readiness.ready
        assert "second_hsm" in readiness.alarms
    finally:
        tokens.give_back()

    def written() -> bool:
        try:
            put(site, "mirror1/x", b"x")
        except StrongroomError:
            return False
        return True

    until(written, 30)


def test_an_hsm_that_is_not_there_is_refused(site: VaultSite) -> None:
    for backends in (["third"], ["first", "first"], ["first", "second", "third"]):
        with pytest.raises(StrongroomError) as caught:
            tenant(site, "initech", key_pb2.KeyHomes(backends=backends))
        assert caught.value.reason == "FIELD_INVALID"
