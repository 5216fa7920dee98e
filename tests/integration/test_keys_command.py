"""`strongroom keys` as a script sees it: a dry run changes nothing and says what would be; what exit codes mean."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.test_backup import strongroom
from tests.integration.test_key_homes import TwoTokens
from tests.integration.test_policy import profile_file
from vault.client import Client
from vault.crypto.approvals import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vault.v1 import key_pb2

POLICY = 'permit (principal, action, resource) when { ["operator", "payments"].contains(principal.path) };'
ACTIONS = ("rotate", "read", "rewrap", "retire", "schedule", "destroy")
SUITE = "CHACHA20-POLY1305-HKDF-SHA256-COMMIT"
EVERYTHING = ("tenants", "keys", "key_homes", "key_destructions", "key_schedules", "jobs", "job_ranges",
              "credentials", "credential_versions", "ingest_keys")  # fmt: skip
NOT_HERE, USAGE, REFUSED, UNREACHABLE, NOT_VALID, NOT_ALL, CONFIG = 1, 2, 3, 4, 5, 6, 78


class Standing(NamedTuple):
    """A vault on two HSMs. acme: version 1 scheduled for destruction, 2 retired, 3 empty, 4 wraps three, 5 active and
    empty. globex: a job is paused.
    """

    two: TwoTokens
    profiles: dict[str, Path]
    job: str
    ended: str

    def __call__(self, words: str, tenant: str = "acme") -> tuple[int, dict[str, Any]]:
        words = words.format(job=self.job, ended=self.ended, folder=self.two.site.folder)
        if "--config" in words:
            # It opens HSM and database itself: not in the tests' own process.
            return alone("keys", *words.split(), "--output", "json")
        whose = () if "--profile" in words else ("--profile", str(self.profiles[tenant]))
        return strongroom("keys", *words.split(), *whose)

    def everything(self) -> dict[str, Any]:
        """All that a command of `keys` could change: rows, and objects in the HSMs."""
        with contextlib.closing(sqlite3.connect(self.two.site.folder / "strongroom.db")) as database:
            rows: dict[str, Any] = {
                table: database.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
                for table in EVERYTHING
            }
        return {**rows, "objects": sorted(path.name for path in self.two.objects())}


def alone(*arguments: str) -> tuple[int, dict[str, Any]]:
    words = [sys.executable, "-m", "vault.cli", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout or "{}")


def scopes(tenant: str) -> tuple[str, ...]:
    more = ("tenant.create:system/tenants/*",) if tenant == "system" else (f"approval.approve:{tenant}/**",)
    return (*(f"key.{action}:{tenant}/keys" for action in ACTIONS), *more)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    kept = os.environ.get("SOFTHSM2_CONF")
    folder = tmp_path_factory.mktemp("keys")
    two = TwoTokens(folder)
    site = two.site
    site.settings["approvals"] = {"destroy_key": 1}
    site.prepare()
    (site.folder / "policy.cedar").write_text(POLICY)
    if kept is not None:
        os.environ["SOFTHSM2_CONF"] = kept
    site.start()
    with Client(site.profile("operator", "system", scopes("system"))) as system:
        for tenant in ("acme", "globex"):
            system.create_tenant(tenant)
    profiles = {}
    for tenant in ("acme", "globex", "system"):
        (folder / tenant).mkdir()
        profiles[tenant] = profile_file(site, "operator", folder / tenant, tenant, scopes(tenant))
    for tenant in ("acme", "globex"):
        # globex has more than its job gets through at one a second before it is paused.
        with site.client("operator", tenant, (f"credential.write:{tenant}/**",)) as writer:
            for number in range(3 if tenant == "acme" else 60):
                writer.put(f"{tenant}/a/{number}", {"value": "x"}, kind="generic")
    with Client(site.profile("operator", "acme", scopes("acme"))) as acme:
        for _ in range(3):
            acme.rotate_key("acme")
        ended = list(acme.watch_job("acme", acme.start_job("acme", "rewrap").job_id))[-1]
        acme.rotate_key("acme")
        for version in (1, 2):
            acme.retire_key("acme", version)
        operation = Operation("key.destroy", "acme/keys", {"version": "1"})
        asked = acme.request_approval(operation, purpose="nobody needs it")
        with Client(site.profile("payments", "acme", ("approval.approve:acme/**",))) as other:
            other.approve(asked)
        acme.destroy_key("acme", 1, approval_id=asked.approval_id)
    with Client(site.profile("operator", "globex", scopes("globex"))) as globex:
        globex.rotate_key("globex")
        job = globex.start_job("globex", "rewrap", max_per_second=1)
        globex.update_job("globex", job.job_id, command="pause")
    yield Standing(two, profiles, job.job_id, ended.job_id)
    site.stop()


DRY: dict[str, tuple[str, dict[str, Any]]] = {
    "create-tenant initech --backend second": ("system", {"version": 1, "state": "KEY_STATE_PENDING"}),
    "rotate acme": ("acme", {"version": 6, "state": "KEY_STATE_PENDING"}),
    "rotate acme --placement wrapped": ("acme", {"version": 6, "placement": "KEY_PLACEMENT_WRAPPED"}),
    "rotate --signing --ingest": (
        "system",
        {"purpose": [f"KEY_PURPOSE_{name}" for name in ("TOKEN", "CHECKPOINT", "INGEST")], "version": [2, 2, 2]},
    ),
    "rewrap acme": ("acme", {"job_id": "", "total": "3", "kind": "JOB_KIND_REWRAP"}),
    f"reencrypt acme --suite {SUITE}": ("acme", {"job_id": "", "total": "3", "suite": SUITE}),
    "move acme --to second": ("acme", {"total": 3}),
    "mirror acme": ("acme", {"total": 3}),
    "retire acme --version 3": ("acme", {"version": 3, "state": "KEY_STATE_RETIRED"}),
    "quarantine acme --version 4": ("acme", {"job_id": "", "total": "3", "kind": "JOB_KIND_REENCRYPT", "urgent": True}),
    "quarantine acme --version 5": ("acme", {"job_id": "", "total": "0"}),
    "restore acme --version 1": ("acme", {"version": 1, "state": "KEY_STATE_RETIRED"}),
    "restore acme --version 2": ("acme", {"version": 2, "state": "KEY_STATE_DECRYPT_ONLY"}),
    "destroy acme --version 2 --delay 0": ("acme", {"key.state": "KEY_STATE_DESTROY_SCHEDULED"}),
    "schedule acme --every 90d": ("acme", {"every": "7776000s"}),
    "pause globex {job}": ("globex", {"state": "JOB_STATE_PAUSED"}),
    "resume globex {job}": ("globex", {"state": "JOB_STATE_RUNNING"}),
    "cancel globex {job}": ("globex", {"state": "JOB_STATE_CANCELLED"}),
    "throttle globex {job} 7": ("globex", {"max_per_second": 7}),
    "init --config {folder}/strongroom.toml": ("", {"missing": []}),
    "rotate-root --config {folder}/strongroom.toml": ("", {"root_version": 2, "to_rewrap": 0}),
}  # fmt: skip


@pytest.mark.parametrize(("words", "tenant", "expected"), [(key, *value) for key, value in DRY.items()])
def test_a_dry_run_says_what_would_be_and_changes_nothing(
    standing: Standing, words: str, tenant: str, expected: dict[str, Any]
) -> None:
    before = standing.everything()
    code, said = standing(f"{words} --dry-run", tenant)
    assert code == 0, said
    for name, value in expected.items():
        assert found(said, name) == value, said
    assert standing.everything() == before


def found(said: Any, name: str) -> Any:
    """What stands at a path of names; of a list: of each."""
    if isinstance(said, list):
        return [found(item, name) for item in said]
    for part in name.split("."):
        said = said[part]
    return said


def test_a_dry_run_of_a_move_says_where_the_key_would_lie(standing: Standing) -> None:
    (second,) = [uri.partition("serial=")[2].partition("?")[0] for uri in standing.two.uris[1:]]
    _, moved = standing("move acme --to second --dry-run")
    assert [second in name for name in moved["key"]["backends"]] == [True]
    _, mirrored = standing("mirror acme --dry-run")
    assert len(mirrored["key"]["backends"]) == 2


EXITS = {
    "list acme": 0,
    "status acme --exit-code": NOT_ALL,
    "describe acme": 0,
    "uses acme --version 4": 0,
    "jobs acme": 0,
    "failures acme {ended}": 0,
    "watch acme {ended}": 0,
    "report acme {ended}": 0,
    "init --config {folder}/absent.toml": CONFIG,
    "list acme --profile {folder}/absent.toml": NOT_HERE,
    "rotate": USAGE,
    "rotate acme --signing": USAGE,
    "retire acme": USAGE,
    "retire acme --version 0": USAGE,
    "schedule acme --every soon": USAGE,
    "move acme": USAGE,
    "no-such-command": USAGE,
    "move acme --to third --dry-run": REFUSED,
    "rotate nobody --dry-run": REFUSED,
    "create-tenant acme --dry-run": REFUSED,
    "retire acme --version 4": REFUSED,
    "retire acme --version 5 --dry-run": REFUSED,
    "retire acme --version 99 --dry-run": REFUSED,
    "destroy acme --version 4 --dry-run": REFUSED,
    "destroy acme --version 5": REFUSED,
    "restore acme --version 5 --dry-run": REFUSED,
    "quarantine acme --version 1": REFUSED,
    "schedule acme --every 9y --dry-run": REFUSED,
    "rewrap acme --version 5 --dry-run": REFUSED,
    "reencrypt acme --suite none --dry-run": REFUSED,
    "watch acme no-such-job": REFUSED,
    "pause acme {ended}": REFUSED,
    "rewrap globex --dry-run": REFUSED,
    "move globex --to second --dry-run": REFUSED,
    "move globex --to second": REFUSED,
    "mirror globex": REFUSED,
    "report globex {job}": NOT_ALL,
    "list acme --profile {folder}/nowhere.toml": UNREACHABLE,
    "init --config {folder}/broken.toml": CONFIG,
    "rotate-root --config {folder}/broken.toml --dry-run": CONFIG,
}


@pytest.mark.parametrize(("words", "code"), EXITS.items())
def test_an_exit_code_can_be_trusted(standing: Standing, words: str, code: int) -> None:
    site = standing.two.site
    text = standing.profiles["acme"].read_text()
    (site.folder / "nowhere.toml").write_text(text.replace(site.address, "localhost:9"))
    config = site.config_file.read_text()
    (site.folder / "broken.toml").write_text(config.replace("strongroom.db", "absent/strongroom.db"))
    tenant = "system" if "create-tenant" in words else "globex" if "globex" in words else "acme"
    before = standing.everything()
    assert standing(words, tenant)[0] == code
    assert standing.everything() == before


def test_a_move_beside_a_job_is_refused_before_there_is_a_key_and_says_what_to_do(standing: Standing) -> None:
    before = standing.everything()
    code, said = standing("move globex --to second", "globex")
    assert (code, "JOB_RUNNING" in said["error"], "keys watch" in said["error"]) == (REFUSED, True, True)
    assert standing.everything() == before


def test_a_move_that_a_job_overtakes_says_that_the_key_is_there_and_how_to_go_on(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate = Client.rotate_key
    others: list[str] = []

    def overtaken(self: Client, tenant: str, **more: Any) -> key_pb2.Key:
        made = rotate(self, tenant, **more)
        others.append(self.start_job(tenant, "rewrap", max_per_second=1).job_id)
        self.update_job(tenant, others[0], command="pause")
        return made

    monkeypatch.setattr(Client, "rotate_key", overtaken)
    code, said = standing("move acme --to second")
    assert (code, "JOB_RUNNING" in said["error"]) == (REFUSED, True)
    assert "version 6 of the key is there" in said["error"]
    assert "strongroom keys rewrap acme" in said["error"]
    assert standing(f"cancel acme {others[0]}")[0] == 0
    code, job = standing("rewrap acme")
    assert (code, job["state"]) == (0, "JOB_STATE_SUCCEEDED")
    (second,) = [uri.partition("serial=")[2].partition("?")[0] for uri in standing.two.uris[1:]]
    _, keys = standing("list acme")
    assert second in str(keys[0]["backends"])
