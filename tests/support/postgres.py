"""A private PostgreSQL cluster: real, on a free port, gone when it is closed. Never run as root.

As in production there are two roles: one owns the databases and migrates, the server connects as the other. So every
test of a vault on PostgreSQL runs behind row-level security. `sql` is the superuser's, for whoever tampers.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from vault.store.grants import role_statements

OWNER, SERVER, SUPERUSER = "strongroom_owner", "strongroom_server", "strongroom"


def owner_url(url: str) -> str:
    """The owner's way into the same database."""
    return url.replace(f"//{SERVER}@", f"//{OWNER}@")


_PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to whoever asks for any."""
_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that no other test gets, in this process or another, for as long as this process lives.

    One that is merely free just now may be another's when it is bound, or while its server is stopped.
    """
    while True:
        port = random.choice(_PORTS)
        # A name that the kernel gives to one process and takes back when that ends.
        mark = socket.socket(socket.AF_UNIX)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                mark.bind(f"\0strongroom-test-port-{port}")
                listener.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
        _kept.append(mark)
        return port


def find_binaries() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    raise RuntimeError("PostgreSQL's server is needed: apt-get install postgresql")


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


class Postgres:
    """A cluster of its own, with fsync on, as in production."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="strongroom-pg-", dir="/tmp"))
        self._binaries = find_binaries()
        self._as_user = self._unprivileged()
        data = self.folder / "data"
        self._run(
            "initdb", "-D", str(data), "-U", SUPERUSER, "-A", "trust", "--no-instructions", "-E", "UTF8"
        )
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.sql("postgres", f"CREATE ROLE {OWNER} LOGIN")
        for statement in role_statements(SERVER):
            self.sql("postgres", statement)

    def url(self, database: str = "postgres", role: str = SERVER) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command = [
            *self._as_user, str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=on",
            "-c", "max_connections=200", "-c", "log_min_messages=warning",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            done = subprocess.run(
                [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not start: " + (self.folder / "log").read_text()[-500:])

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would, and wait until its children have noticed and ended.

        As long as one is left, no new postmaster starts on the same data.
        """
        pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        deadline = time.monotonic() + 30
        while any(_runs(child) for child in children):
            assert time.monotonic() < deadline, "a child outlives its postmaster"
            time.sleep(0.01)

    def create_database(self, name: str) -> str:
        self.sql("postgres", f'CREATE DATABASE "{name}" OWNER {OWNER}')
        # As PostgreSQL has it from version 15 on.
        self.sql(name, f"ALTER SCHEMA public OWNER TO {OWNER}")
        return self.url(name)

    def sql(self, database: str, statement: str) -> str:
        done = subprocess.run(
            [str(self._binaries / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-d", database,
             "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    def offer_tls(self, certificate: bytes, key: bytes) -> None:
        """Take TLS connections beside others, from now on."""
        for name, pem in (("tls.pem", certificate), ("tls-key.pem", key)):
            file = self._data / name
            file.write_bytes(pem)
            file.chmod(0o600)
            shutil.chown(file, *self._data.stat()[4:6])
        for setting in ("ssl_cert_file = 'tls.pem'", "ssl_key_file = 'tls-key.pem'", "ssl = on"):
            self.sql("postgres", f"ALTER SYSTEM SET {setting}")
        self.sql("postgres", "SELECT pg_reload_conf()")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGINT)
            self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unprivileged(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, str(self._binaries / program), *arguments], capture_output=True, text=True, check=False,
            cwd=self.folder,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-500:]}")
