"""The proof of promise 4: `make prove-memory`.

    python -m tests.memory.proof [--sessions 1000] [--strict]

Starts the real server under an allocator that never gives memory out twice (`allocator/`), so that nothing is gone
because other data happened to take its place; stores secrets in every kind of credential; makes puts, reveals,
hand-overs and every use, errors in the middle, cancelled and killed clients; closes all; and looks for every secret, in
every spelling, and for every data key, in the whole of the worker's memory, from outside. Expects none. What goes
out (requests, captures, refreshes) really goes, to mock providers; the tokens that those give are looked for, too.

The server asks its allocator to overwrite what is freed, and this one does as it is asked. With --strict it does not:
then it shows which copies libraries made and gave back, and that overwriting is all that takes those away.

Two controls, without which finding none proves nothing: while sessions are open the secrets must be found; and the same
server, made to keep one copy on purpose, must be found out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsm.softhsm import config_file, init_token
from tests.integration.wire import until
from tests.support.certificates import self_signed
from tests.support.postgres import free_port
from tests.support.scan import copies
from tests.support.vault import TRUST_DOMAIN, VaultSite
from vault.cli import mock_providers
from vault.client import StrongroomError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault.client import Client, Session

HERE = Path(__file__).parent
FOLDER = "acme/proof"
MARK = b"kanary"
DONE = ("puts", "reveals", "sessions", "uses", "hand-overs", "errors", "killed clients")
_GIVEN = "token that a provider gave"


@dataclass(frozen=True)
class Secret:
    """A secret in a credential, and every spelling that a copy of it could have."""

    label: str
    patterns: dict[str, bytes]


@dataclass
class Credential:
    """A credential to store, and what of it must not stay in memory."""

    kind: str
    fields: dict[str, str]
    secrets: list[Secret] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.kind.replace('_', '-')}"


def build_allocator(folder: Path) -> Path:
    """Compile the allocator."""
    library = folder / "keepall.so"
    source = HERE / "allocator/keepall.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-lpthread"], check=True)
    return library


def text_canary() -> str:
    return (MARK + secrets.token_hex(24).encode()).decode()


def spellings(value: bytes) -> dict[str, bytes]:
    """What a copy could look like. Quoting by JSON leaves these characters as they are."""
    return {
        "raw": value,
        "base64": base64.b64encode(value).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(value).rstrip(b"="),
        "hex": value.hex().encode(),
        "utf-16": b"".join(bytes((byte, 0)) for byte in value),
        "utf-32": b"".join(bytes((byte, 0, 0, 0)) for byte in value),
    }


def number_spellings(value: int, size: int) -> dict[str, bytes]:
    """A secret number as libraries keep it: either end first."""
    big = value.to_bytes(size, "big")
    return {"big-endian": big, "little-endian": big[::-1], "hex": big.hex().encode()}


def pem_secret(
    label: str, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
) -> tuple[str, Secret]:
    """A private key in PEM, and what must not stay of it: a line of the text, and the secret number."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    lines = [line for line in pem.splitlines() if "-" not in line]
    # The longest line that is not the beginning, which all keys of an algorithm share.
    text = max(lines[1:] or [lines[0][20:]], key=len)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = number_spellings(key.private_numbers().private_value, 32)
    elif isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        numbers = {
            **{f"p {form}": value for form, value in number_spellings(private.p, 128).items()},
            **{f"d {form}": value for form, value in number_spellings(private.d, 256).items()},
        }
    else:
        raw = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        numbers = {"raw": raw, "hex": raw.hex().encode()}
    return pem, Secret(label, {"PEM": text.encode(), **numbers})


def credentials() -> list[Credential]:
    """One of every kind, each with its own secrets."""
    made: list[Credential] = []

    def add(kind: str, plain: dict[str, str], *secret_fields: str) -> Credential:
        credential = Credential(kind, dict(plain))
        for name in secret_fields:
            value = text_canary()
            credential.fields[name] = value
            credential.secrets.append(Secret(f"{kind}.{name}", spellings(value.encode())))
        made.append(credential)
        return credential

    add("generic", {}, "value", "webhook_secret")
    add("imported", {}, "value")
    add("plaid_app", {"client_id": "c"}, "secret")
    add("plaid_item", {"item_id": "i"}, "access_token")
    stripe = add("stripe_account", {}, "api_key", "webhook_secret")
    # The mock takes a test key only; what is looked for is what comes after.
    stripe.fields["api_key"] = "sk_test_" + stripe.fields["api_key"]
    add("braintree_merchant", {"public_key": "pk"}, "private_key")
    add("gocardless_merchant", {}, "access_token", "webhook_secret")
    add("oauth_client", {"client_id": "c"}, "client_secret")
    add("oauth_grant", {}, "refresh_token", "access_token")
    add("webhook_secret", {}, "webhook_secret")
    endpoint = add("webhook_endpoint", {})
    signing = base64.b64encode(secrets.token_bytes(32))
    endpoint.fields["signing_secret"] = "whsec_" + signing.decode()
    endpoint.secrets.append(
        Secret("webhook_endpoint.signing_secret", {"text": signing, "raw": base64.b64decode(signing)})
    )
    add("api_key", {}, "api_key", "api_secret")

    adyen = add("adyen_merchant", {}, "api_key")
    hex_key = secrets.token_bytes(32)
    adyen.fields["hmac_key"] = hex_key.hex()
    adyen.secrets.append(Secret("adyen_merchant.hmac_key", {"text": hex_key.hex().encode(), "raw": hex_key}))

    login = add("bank_login", {"username": "u"}, "password")
    seed = secrets.token_bytes(20)
    login.fields["totp_seed"] = base64.b32encode(seed).decode()
    login.secrets.append(
        Secret(
            "bank_login.totp_seed", {"text": base64.b32encode(seed), "raw": seed, "hex": seed.hex().encode()}
        )
    )

    key = ec.generate_private_key(ec.SECP256R1())
    pem, secret = pem_secret("tls_client.private_key", key)
    made.append(
        Credential(
            "tls_client", {"private_key": pem, "certificate": self_signed(key, "proof").decode()}, [secret]
        )
    )
    pem, secret = pem_secret("signing_key.private_key (P-256)", ec.generate_private_key(ec.SECP256R1()))
    made.append(Credential("signing_key", {"private_key": pem, "algorithm": "ES256"}, [secret]))
    return made


def more_signing_keys() -> Iterator[tuple[str, str, dict[str, str], Secret]]:
    """Signing keys of the other algorithms."""
    for suffix, algorithm, key in (
        ("ed25519", "EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ("rsa", "PS256", rsa.generate_private_key(65537, 2048)),
    ):
        pem, secret = pem_secret(f"signing_key.private_key ({suffix})", key)
        yield suffix, f"{FOLDER}/signing-{suffix}", {"private_key": pem, "algorithm": algorithm}, secret


@dataclass(frozen=True)
class Use:
    """A use, and the credentials that a session for it holds: the last part of each one's name."""

    action: str
    names: tuple[str, ...]
    run: Callable[[Session], object]
    changes: str = ""
    """What it changes, which no other use may meanwhile."""


def _named(*names: str) -> list[str]:
    return [f"{FOLDER}/{name}" for name in names]


def _capture(session: Session) -> None:
    """A public token becomes an item, whose access token is replaced: two secrets that the provider gives."""
    app, new = _named("plaid-app", "captured")
    created = json.loads(
        session.http_call("plaid-mock", "POST", "/sandbox/public_token/create", name=app).body
    )
    exchange = json.dumps({"public_token": created["public_token"]}).encode()
    path = "/item/public_token/exchange"
    answer = session.http_call("plaid-mock", "POST", path, name=app, body=exchange, capture=new)
    assert answer.captured_name == new


def _rotate(session: Session) -> None:
    app, item = _named("plaid-app", "captured")
    answer = session.http_call("plaid-mock", "POST", "/item/access_token/invalidate", name=item, also=app)
    assert answer.captured_name == item


def _mint(session: Session) -> None:
    app, item = _named("plaid-app", "captured")
    asked = {"client_user_id": "c", "client_name": "Acme", "country_codes": ["DE"]}
    assert session.link_token("plaid-mock", name=item, also=app, **asked).link_token  # type: ignore[arg-type]


def _balance(session: Session) -> None:
    assert session.http_call("stripe-mock", "GET", "/v1/balance").status == 200


def _withheld(session: Session) -> None:
    """The provider shows the key: then nothing is answered."""
    try:
        session.http_call("stripe-mock", "GET", "/v1/echo")
    except StrongroomError as error:
        assert error.reason == "RESPONSE_WITHHELD"


def _refresh(connector: str, client: str) -> Callable[[Session], object]:
    def refresh(session: Session) -> None:
        grant, own = _named("oauth-grant", client)
        assert session.oauth_refresh(connector, client=own, name=grant).refreshed

    return refresh


# Fewer than may be fetched in a minute, in turn: each is asked for, and then remembered for a while.
_WEBHOOK_KEYS = itertools.cycle([mock_providers.WebhookKey() for _ in range(10)])


def _fetch_key(session: Session) -> None:
    jwt = next(_WEBHOOK_KEYS).sign(b"{}", time.time())
    headers = {"Plaid-Verification": jwt}
    assert session.verify_webhook("plaid", headers, b"{}", connector="plaid-mock").verdict


USES = (
    Use("session.use.hmac", ("api-key",), lambda s: s.hmac("api_key", b"m")),
    Use("session.use.hmac_raw", ("api-key",), lambda s: s.hmac("api_secret", b"m", raw=True)),
    Use("session.use.verify_hmac", ("api-key",), lambda s: s.verify_hmac("api_key", b"m", b"\0" * 32)),
    Use("session.use.totp", ("bank-login",), lambda s: s.totp()),
    Use(
        "session.use.verify_webhook",
        ("stripe-account",),
        lambda s: s.verify_webhook("stripe", {"stripe-signature": f"t={int(time.time())},v1=00"}, b"{}"),
    ),
    Use("session.use.verify_webhook", ("plaid-app",), _fetch_key),
    Use("session.use.answer_challenge", ("braintree-merchant",), lambda s: s.answer_challenge("0" * 20)),
    Use("session.use.sign_jws", ("signing-key",), lambda s: s.sign_jws(b"{}")),
    Use(
        "session.use.client_assertion",
        ("signing-key",),
        lambda s: s.client_assertion("https://bank.example/token", client_id="c"),
    ),
    Use(
        "session.use.sign_http",
        ("signing-key",),
        lambda s: s.sign_http("POST", "https://bank.example/pay", {}, components=["@method"], body=b"{}"),
    ),
    Use("session.use.sign_raw", ("signing-key",), lambda s: s.sign_raw(b"m")),
    Use("session.use.http_call", ("stripe-account",), _balance),
    Use("session.use.http_call", ("stripe-account",), _withheld),
    Use("session.use.http_call", ("plaid-app",), _capture, "captured"),
    Use("session.use.http_call", ("plaid-app", "captured"), _rotate, "captured"),
    Use("session.use.link_token", ("plaid-app", "captured"), _mint, "captured"),
    Use(
        "session.use.oauth_refresh",
        ("oauth-grant", "oauth-client"),
        _refresh("oauth-mock", "oauth-client"),
        "grant",
    ),
    Use(
        "session.use.oauth_refresh",
        ("oauth-grant", "oauth-signer"),
        _refresh("oauth-mock-jwt", "oauth-signer"),
        "grant",
    ),
)
"""Every use, on credentials that it works on; a test holds this against the table of uses."""


@contextlib.contextmanager
def providers(folder: Path) -> Iterator[mock_providers.Providers]:
    """Mock providers in this process, and connectors that lead to them."""
    port = free_port()
    made = mock_providers.connectors(port, str(folder / "pki/ca.pem"))
    made["oauth-mock-jwt"] = made["oauth-mock"].replace('"basic"', '"private_key_jwt"')
    (folder / "connectors").mkdir()
    for name, text in made.items():
        (folder / f"connectors/{name}.toml").write_text(text)
    served = mock_providers.Providers(
        port, str(folder / "pki/server.pem"), str(folder / "pki/server-key.pem")
    )
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        served.shutdown()
        served.server_close()


@contextlib.contextmanager
def server(*, leak: bool, strict: bool) -> Iterator[tuple[VaultSite, mock_providers.Providers]]:
    """The vault from nothing, its processes under the allocator, and the providers that it reaches."""
    with tempfile.TemporaryDirectory(prefix="strongroom-proof-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        uri = init_token(folder / "token", "proof", folder / "pin")
        settings: dict[str, dict[str, object]] = {"connectors": {"folder": "connectors"}}
        database = "sqlite:///strongroom.db"
        site = VaultSite(folder / "vault", database, uri, config_file(folder / "token"), settings)
        site.prepare()
        reached = stack.enter_context(providers(site.folder))
        changed = {"LD_PRELOAD": str(build_allocator(folder)), "PYTHONMALLOC": "malloc"}
        if leak:
            changed["PYTHONPATH"] = str(HERE / "leaking")
        if strict:
            changed["KEEPALL_STRICT"] = "1"
        kept = {key: os.environ.get(key) for key in changed}
        os.environ.update(changed)
        try:
            site.start()
        finally:
            for key, value in kept.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        try:
            with site.system() as system:
                system.create_tenant("acme")
            yield site, reached
        finally:
            site.stop()


def exercise(
    site: VaultSite, reached: mock_providers.Providers, sessions: int
) -> tuple[list[Secret], dict[str, int]]:
    """Everything that can be done with a secret, in the end all closed; what to look for, and what was done."""
    stored = credentials()
    done = dict.fromkeys(DONE, 0)
    looked_for = [secret for credential in stored for secret in credential.secrets]
    with site.client() as client:
        names = []
        for credential in stored:
            client.put(credential.name, credential.fields, kind=credential.kind)
            names.append(credential.name)
            if credential.kind == "oauth_grant":
                reached.refresh_tokens.add(credential.fields["refresh_token"])
        for _, name, fields, secret in more_signing_keys():
            client.put(name, fields, kind="signing_key")
            names.append(name)
            looked_for.append(secret)
        pem, secret = pem_secret("oauth_client.private_key (P-256)", ec.generate_private_key(ec.SECP256R1()))
        client.put(f"{FOLDER}/oauth-signer", {"client_id": "c", "private_key": pem}, kind="oauth_client")
        looked_for.append(secret)
        done["puts"] = len(names)
        for name in names:
            client.reveal(name, purpose="proof")[0].close()
        for revealed in client.reveal(*names, purpose="proof"):
            revealed.close()
        done["reveals"] = 2 * len(names)
        looked_for.append(_hand_over(site, client, done))
        _refused(client, done)
    for lane in _side_by_side(site, names, sessions // 2):
        done = {what: count + lane[what] for what, count in done.items()}
    _killed(site, done)
    looked_for += [
        Secret(f"{_GIVEN} ({number})", spellings(token.encode()))
        for number, token in enumerate(reached.issued)
    ]
    return looked_for, done


def _hand_over(site: VaultSite, client: Client, done: dict[str, int]) -> Secret:
    value = text_canary()
    recipient = f"spiffe://{TRUST_DOMAIN}/ledger"
    wrapped = client.wrap(f"{FOLDER}/handover", {"password": value}, recipient=recipient)
    with site.client("ledger") as ledger:
        ledger.unwrap(f"{FOLDER}/handover", wrapped.handover_id).close()
    done["hand-overs"] += 1
    return Secret("hand-over", spellings(value.encode()))


def _side_by_side(site: VaultSite, names: list[str], pairs: int) -> list[dict[str, int]]:
    """Pairs of sessions by several clients at once; what each did."""
    lanes: dict[str, list[int]] = {}
    for index in range(pairs):
        lane = USES[index % len(USES)].changes or f"free {index % 3}"
        lanes.setdefault(lane, []).append(index)

    def run(indices: list[int]) -> dict[str, int]:
        done = dict.fromkeys(DONE, 0)
        with site.client() as client:
            for index in indices:
                _two_sessions(client, names[index % len(names)], index, done)
        return done

    with ThreadPoolExecutor(len(lanes) or 1) as pool:
        return list(pool.map(run, lanes.values()))


def _two_sessions(client: Client, name: str, index: int, done: dict[str, int]) -> None:
    """One with a reveal and an error in the middle, one with a use; some of these are left without a goodbye."""
    use = USES[index % len(USES)]
    used = _named(*use.names)
    if use.action.startswith("session.use.sign") and index % 3:
        used = _named(f"signing-{('rsa', 'ed25519')[index % 2]}")
    with client.session(name, purpose="proof") as session:
        session.reveal().close()
        with contextlib.suppress(StrongroomError):
            session.reveal("no_such_field").close()
        done["reveals"] += 1
        done["errors"] += 1
    with client.session(*used, purpose="proof") as session:
        use.run(session)
        done["uses"] += 1
        if index % 3 == 0:
            session._leave()
    done["sessions"] += 2


def _refused(client: Client, done: dict[str, int]) -> None:
    """Puts that fail when the secret is open already."""
    value = text_canary()
    for kind, fields in (
        ("bank_login", {"cvv": value}),
        ("adyen_merchant", {"hmac_key": value}),
        ("generic", {"track": f"%B4111111111111111^{value[:20]}^2512"}),
    ):
        # Past the client's own check, which would not let it leave.
        with contextlib.suppress(StrongroomError, Exception):
            client.put(f"{FOLDER}/refused", fields, kind=kind)
        done["errors"] += 1


_CHILD = """
import sys
from pathlib import Path
from vault.client import Client, Profile
f = Path(sys.argv[1])
p = Profile(sys.argv[2], f/"ca.pem", f/"payments.pem", f/"payments-key.pem", "acme", ("session.reveal:acme/**",))
with Client(p).session(sys.argv[3], purpose="proof") as session:
    session.reveal()
    print("open", flush=True)
    sys.stdin.read()
"""


def _killed(site: VaultSite, done: dict[str, int]) -> None:
    for kind in ("generic", "bank-login"):
        arguments = [str(site.folder / "pki"), site.address, f"{FOLDER}/{kind}"]
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            child.kill()
        done["killed clients"] += 1


async def _data_keys(site: VaultSite) -> list[bytes]:
    """The data key of every version that was made, unwrapped by this process: there is no other way to know them."""
    from vault import config as configuration
    from vault.core.envelopes import Envelopes
    from vault.core.subjects import Subjects
    from vault.store import credentials as store

    os.environ["SOFTHSM2_CONF"] = str(site.softhsm_config)
    from vault.server.foundation import foundation

    found = []
    async with foundation(configuration.load(site.config_file)) as base:
        async with base.database.read() as connection:
            listed = await store.list_credentials(
                connection, prefix=FOLDER, after="", limit=1000, show_deleted=True
            )
            versions = [(item.name, n) for item in listed for n in range(1, item.latest_version + 1)]
            stored = await store.get_stored(connection, versions)
        subjects = Subjects(base.database, base.hsm, base.log, base.keyring)
        envelopes = Envelopes(base.hsm, base.keyring, subjects)
        for sealed in await envelopes._parse(stored):
            with await base.hsm.unwrap(sealed.unwrapping) as dek:
                found.append(bytes(dek.view))
    return found


def scan(site: VaultSite, looked_for: list[Secret]) -> dict[str, dict[str, int]]:
    """How often each secret, in each spelling, stands in the worker's memory."""
    (pid,) = site.worker_pids()
    patterns = {f"{s.label}\0{form}": value for s in looked_for for form, value in s.patterns.items()}
    found: dict[str, dict[str, int]] = {}
    for key, count in copies(pid, patterns).items():
        label, _, form = key.partition("\0")
        found.setdefault(label, {})[form] = count
    return found


def total(found: dict[str, dict[str, int]]) -> int:
    return sum(count for forms in found.values() for count in forms.values())


@dataclass(frozen=True)
class Found:
    """How many copies were found: while sessions were open, and after all were closed, by what they are of."""

    while_open: int
    after: dict[str, int]


def prove(sessions: int, *, leak: bool = False, strict: bool = False) -> Found:
    """Run the whole and print what was looked for and found."""
    began = time.monotonic()
    with server(leak=leak, strict=strict) as (site, reached):
        looked_for, done = exercise(site, reached, sessions)
        with site.client() as client, contextlib.ExitStack() as stack:
            for name in (f"{FOLDER}/generic", f"{FOLDER}/bank-login"):
                stack.enter_context(client.session(name, purpose="control"))
            while_open = total(scan(site, looked_for))
        deks = asyncio.run(_data_keys(site))
        looked_for.extend(
            Secret(f"data key {n}", {"raw": dek, "hex": dek.hex().encode()}) for n, dek in enumerate(deks)
        )
        until(lambda: _all_over(site))
        time.sleep(1.0)
        found = scan(site, looked_for)
        (pid,) = site.worker_pids()
        memory = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) // 1024
    print(f"done: {', '.join(f'{count} {what}' for what, count in done.items())}")
    print(
        f"worker: {memory} MB of memory, none of it given out twice; looked at in {time.monotonic() - began:.0f} s\n"
    )
    print(f"{'looked for':<40}{'spellings':<44}{'found':>6}")
    for label, forms in found.items():
        if not label.startswith(("data key", _GIVEN)) or sum(forms.values()):
            where = ", ".join(f"{form} {count}" for form, count in forms.items() if count)
            print(f"{label:<40}{', '.join(forms)[:43]:<44}{sum(forms.values()):>6}  {where}")
    given = [sum(forms.values()) for label, forms in found.items() if label.startswith(_GIVEN)]
    print(f"{f'{len(given)} tokens that providers gave':<40}{'raw, base64, hex, ...':<44}{sum(given):>6}")
    data_keys = sum(sum(f.values()) for label, f in found.items() if label.startswith("data key"))
    print(f"{f'{len(deks)} data keys':<40}{'raw, hex':<44}{data_keys:>6}")
    print(f"\nwhile two sessions were open: {while_open} copies; after: {total(found)}")
    return Found(while_open, {label: sum(forms.values()) for label, forms in found.items()})


def _all_over(site: VaultSite) -> bool:
    """Whether every session that was opened has ended, also those whose callers were killed."""
    with site.operator() as operator:
        opened, closed = (
            len(operator.audit_records(action=action, outcome="granted", most=100_000))
            for action in ("session.open", "session.close")
        )
    return opened == closed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.memory.proof")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--strict", action="store_true", help="overwrite nothing that is freed")
    options = parser.parse_args()
    found = prove(options.sessions, strict=options.strict)
    print("\nthe control, a server that keeps one copy on purpose:\n")
    leaked = prove(2, leak=True, strict=options.strict)
    if not found.while_open or not sum(leaked.after.values()):
        print("NOT PROVED: the scan does not see what is there")
        return 1
    left = sum(found.after.values())
    print(f"NOT PROVED: {left} copies were left" if left else "proved: no copy was left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
