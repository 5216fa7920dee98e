"""What `hsm/` costs, as ratios within one run:  python bench/hsm.py [--json FILE] [--seconds N]

1. wrap and unwrap through the backend, against the bare python-pkcs11 calls on the same key: one thread;
2. the same with 1 ms added to each call of the module (the proxy of the fault tests), 32 sessions against
   one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pkcs11 import Attribute, GCMParams, Mechanism

from hsm import KeyAlgorithm, KeyRef, KeySpec, open_backend, softhsm
from tests.faults.hsm.shim import Shim, use

AAD = bytes(64)
DEK = bytes(32)


def rate(work, seconds):
    """Calls per second."""
    started, count = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < seconds:
        for _ in range(50):
            work()
        count += 50
    return count / took


def rate_of_threads(work, threads, seconds):
    """Calls per second of so many threads together."""
    counts, end = [0] * threads, time.perf_counter() + seconds

    def run(number):
        while time.perf_counter() < end:
            work()
            counts[number] += 1

    crew = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    started = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def one_thread(uri, seconds):
    with open_backend(uri) as backend:
        ref = KeyRef("bench/kek", os.urandom(16))
        backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
        blob, into = backend.wrap(ref, DEK, AAD), memoryview(bytearray(32))
        worker = backend._pool.acquire("bench")
        key = next(iter(list(worker.session.get_objects({Attribute.ID: ref.object_id}))))

        def params():
            return {
                "mechanism": Mechanism.AES_GCM,
                "mechanism_param": GCMParams(os.urandom(12), AAD, 128),
                "buffer_size": 256,
            }

        fixed = params()
        sealed = key.encrypt(DEK, **fixed)
        works = {
            "wrap": lambda: backend.wrap(ref, DEK, AAD),
            "raw encrypt": lambda: key.encrypt(DEK, **params()),
            "unwrap": lambda: backend.unwrap(ref, blob, AAD, into),
            "raw decrypt": lambda: key.decrypt(sealed, **fixed),
        }
        # In turns, so that what else the machine does falls on all alike.
        turns = 40
        rounds = [{name: rate(work, seconds / turns) for name, work in works.items()} for _ in range(turns)]
        found = {name: statistics.median(turn[name] for turn in rounds) for name in works}
        backend._pool.release(worker)
        backend.destroy_key(ref, confirm=ref.label)
    return found


def with_latency(uri, shim, seconds):
    with open_backend(uri, sessions=32) as backend:
        ref = KeyRef("bench/kek", os.urandom(16))
        backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
        blob = backend.wrap(ref, DEK, AAD)

        def work():
            backend.unwrap(ref, blob, AAD, memoryview(bytearray(32)))

        rate_of_threads(work, 32, 0.3)  # opens the sessions and fills their caches
        for function in ("C_DecryptInit", "C_Decrypt", "C_EncryptInit", "C_Encrypt"):
            shim.delay(function, 1000)
        found = {
            "1 ms, 1 thread": rate_of_threads(work, 1, seconds),
            "1 ms, 32 threads": rate_of_threads(work, 32, seconds),
        }
        shim.heal()
        backend.destroy_key(ref, confirm=ref.label)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        uri = softhsm.init_token(directory, "bench", directory / "pin")
        os.environ["SOFTHSM2_CONF"] = str(softhsm.config_file(directory))
        shim = Shim.build(directory)
        use(shim)
        found = one_thread(uri, options.seconds)
        found |= with_latency(shim.uri(uri), shim, options.seconds)
    ratios = {
        "wrap / raw": (found["wrap"] / found["raw encrypt"], 0.65),
        "unwrap / raw": (found["unwrap"] / found["raw decrypt"], 0.65),
        "32 sessions / 1 thread": (found["1 ms, 32 threads"] / found["1 ms, 1 thread"], 12.0),
    }
    for what, value in found.items():
        print(f"{what:24} {value:10.0f} /s")
    for what, (value, least) in ratios.items():
        print(f"{what:24} {value:10.2f}    at least {least:.2f}: {'yes' if value >= least else 'NO'}")
    if options.json:
        options.json.write_text(
            json.dumps({"per_second": found, "ratios": {k: v[0] for k, v in ratios.items()}}, indent=1)
        )
    return 0 if all(value >= least for value, least in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
