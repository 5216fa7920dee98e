"""What the kernel and another process see of locked memory. Each test looks at a child of its own."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from vault.crypto.hardening import ENVIRONMENT

ROOT = Path(__file__).parents[2]
ROUNDS = 300
# A child gets the canary as two numbers whose XOR it is: joined as a number, whose bytes do not lie in a row, and made
# into one bytes object at a time. So no copy is there but those that the code under test makes.
PREAMBLE = """
import gc, os, sys
from vault.crypto import bundle, encoding, envelope, hpke, memory, parcel, stream, suites
half, other = (int(each, 16) for each in sys.stdin.readline().split())

def secret():
    return (half ^ other).to_bytes(32, "big")

def pause(word):
    gc.collect()
    print(word, flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True)
class Region:
    start: int
    end: int
    readable: bool
    name: str
    flags: frozenset[str]


class Child:
    """A child process that stops at each `pause`, to be looked at from outside."""

    def __init__(self, body: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(body)],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.canary = secrets.token_bytes(32)
        mask = secrets.randbits(256)
        self.say(f"{int.from_bytes(self.canary, 'big') ^ mask:x} {mask:x}")

    def say(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def reaches(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == word, self.process.communicate()[1]

    def ends(self) -> None:
        self.say()
        errors = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def regions(self) -> list[Region]:
        found = []
        text = Path(f"/proc/{self.process.pid}/smaps").read_text()
        for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text)[1:]:
            head, *rest = part.splitlines()
            span, access, _, _, _, *name = head.split(maxsplit=5)
            start, end = (int(each, 16) for each in span.split("-"))
            flags = next(line for line in rest if line.startswith("VmFlags:")).split()[1:]
            found.append(Region(start, end, "r" in access, "".join(name).strip(), frozenset(flags)))
        return found

    def copies(self) -> tuple[int, int]:
        """How often the canary lies in locked memory, and how often anywhere else."""
        counts = {True: 0, False: 0}
        with open(f"/proc/{self.process.pid}/mem", "rb", buffering=0) as content:  # noqa: PTH123
            for region in self.regions():
                if not region.readable or region.name in {"[vvar]", "[vsyscall]", "[vvar_vclock]"}:
                    continue
                content.seek(region.start)
                data = bytearray()
                while len(data) < region.end - region.start:
                    piece = content.read(region.end - region.start - len(data))
                    assert piece
                    data += piece
                counts["lo" in region.flags] += data.count(self.canary)
        return counts[True], counts[False]


def run(body: str) -> None:
    """A child that checks itself."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(body)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


class TestWhatTheKernelKnows:
    @pytest.mark.parametrize("size", [32, 65_536, 200_000])
    def test_buffers_are_locked_left_out_of_core_dumps_and_wiped_on_fork(self, size):
        body = f"""
        import ctypes
        buffer = memory.allocate({size})
        pause("ready")
        print(ctypes.addressof(ctypes.c_char.from_buffer(buffer.view)), flush=True)
        """
        with Child(body) as child:
            child.reaches("ready")
            regions = child.regions()
            child.say()
            assert child.process.stdout is not None
            address = int(child.process.stdout.readline())
        (region,) = [region for region in regions if region.start <= address < region.end]
        assert {"lo", "dd", "wf"} <= region.flags
        assert address + size <= region.end

    def test_a_forked_child_finds_zeros_and_lends_memory_that_is_locked_for_itself(self):
        run("""
        import os, re, ctypes, threading, warnings
        from pathlib import Path
        from vault.crypto import memory

        small, large = memory.absorb(bytes(bytearray(b"s" * 32))), memory.allocate(100_000)
        large.view[:] = b"s" * 100_000
        slice_of_it = small.view[3:9]
        entered, leave = threading.Event(), threading.Event()

        def hold_the_lock():
            with memory._arena._lock:
                entered.set()
                leave.wait()

        holder = threading.Thread(target=hold_the_lock)
        holder.start()
        entered.wait()
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside a thread is what is tested
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert not any(small.view) and not any(large.view) and not any(slice_of_it)
                new = memory.allocate(32)
                new.view[:] = b"n" * 32
                address = ctypes.addressof(ctypes.c_char.from_buffer(new.view))
                old = ctypes.addressof(ctypes.c_char.from_buffer(small.view))
                assert not old - 262_144 < address < old + 262_144
                for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
                    start, end = (int(each, 16) for each in part.split(" ")[0].split("-"))
                    if start <= address < end:
                        assert {"lo", "dd", "wf"} <= set(part.rpartition("VmFlags:")[2].split())
                        code = 0
                assert small.close() and large.close() and new.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        leave.set()
        holder.join()
        assert bytes(small.view) == b"s" * 32 and bytes(large.view) == b"s" * 100_000
        """)


class TestScanFromOutside:
    def test_absorbed_secrets_lie_in_locked_memory_alone_and_nowhere_once_closed(self):
        body = f"""
        held = []
        for number in range({ROUNDS}):
            buffer = memory.absorb(secret())
            if number % 100:
                buffer.close()
            else:
                held.append(buffer)
        pause("held")
        for buffer in held:
            buffer.close()
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("held")
            assert child.copies() == (ROUNDS // 100, 0)
            child.say()
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    @pytest.mark.parametrize(
        "leak",
        [
            "kept = secret()",
            "kept = bytearray(secret())",
            "buffer = memory.absorb(secret()); kept = bytes(buffer.view); buffer.close()",
            "kept = b'xxx' + secret()[:] + bytes(9)",
        ],
    )
    def test_the_scan_finds_a_single_copy_that_was_left(self, leak):
        body = f"""
        for _ in range({ROUNDS}):
            memory.absorb(secret()).close()
        pause("clean")
        {leak}
        pause("leaked")
        """
        with Child(body) as child:
            child.reaches("clean")
            assert child.copies() == (0, 0)
            child.say()
            child.reaches("leaked")
            locked, elsewhere = child.copies()
            assert locked == 0
            assert elsewhere >= 1
            child.ends()

    def test_one_that_is_forgotten_or_still_looked_at_is_wiped(self):
        body = f"""
        views = []
        for number in range({ROUNDS}):
            buffer = memory.absorb(secret())
            views.append(buffer.view[1:])
            if number % 2:
                buffer.close()
            del buffer
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    def test_bundles_and_parcels_copy_a_value_into_locked_memory_alone(self):
        body = f"""
        for number in range({ROUNDS}):
            with memory.absorb(secret()) as value:
                packed = bundle.pack_into({{"a": value.view, "b": value.view}}, memory.allocate)
            with packed, bundle.select(packed.view, ["b"]) as chosen:
                with parcel.join([packed.view, chosen.view]) as joined:
                    views = parcel.split(joined.view)
                    assert bundle.field_view(views[0], "a") == bundle.field_view(views[1], "b")
                    if not number:
                        pause("open")
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("open")
            assert child.copies() == (6, 0)
            child.say()
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    @pytest.mark.parametrize("suite", [1, 2])
    def test_an_envelope_is_sealed_and_opened_without_a_copy(self, suite):
        body = f"""
        context = envelope.EnvelopeContext("acme", "acme/a", 1, "kek", 1)
        chosen = suites.suite({suite})
        for number in range({ROUNDS}):
            with envelope.new_dek() as dek:
                with memory.absorb(secret()) as plaintext:
                    blob = envelope.seal(chosen, context, dek, b"wrapped", plaintext.view)
                with envelope.open(envelope.parse(blob), context, dek) as opened:
                    if not number:
                        pause("open")
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("open")
            assert child.copies() == (1, 0)
            child.say()
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    def test_a_data_key_leaves_no_copy(self):
        """Here the canary is the DEK: nothing that derives from it may keep it."""
        body = f"""
        context = envelope.EnvelopeContext("acme", "acme/a", 1, "kek", 1)
        for number in range({ROUNDS}):
            with memory.absorb(secret()) as dek:
                blob = envelope.seal(suites.current(), context, dek, b"wrapped", memoryview(b"x"))
                envelope.open(envelope.parse(blob), context, dek).close()
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    def test_a_channel_carries_a_message_without_a_copy(self):
        body = f"""
        with memory.absorb(os.urandom(32)) as key:
            sealer, opener = stream.SessionSealer(key), stream.SessionOpener(key)
            for number in range({ROUNDS}):
                with memory.absorb(secret()) as plaintext:
                    counter, sealed = sealer.seal(b"aad", plaintext.view)
                opener.open(counter, b"aad", sealed).close()
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()

    @pytest.mark.parametrize("suite", [1, 2])
    def test_hpke_opens_without_leaving_a_copy(self, suite):
        body = f"""
        suite = hpke.SUITES[{suite}]
        keys = hpke.generate_keypair(suite)
        for number in range({ROUNDS}):
            with memory.absorb(secret()) as plaintext:
                sealed = hpke.seal(suite, keys.public_bytes, b"info", plaintext.view)
            with hpke.open(suite, keys.private, b"info", sealed):
                if not number:
                    pause("open")
        pause("closed")
        """
        with Child(body) as child:
            child.reaches("open")
            assert child.copies() == (1, 0)
            child.say()
            child.reaches("closed")
            assert child.copies() == (0, 0)
            child.ends()


class TestHardening:
    def test_the_process_is_not_dumpable_and_writes_no_core(self):
        run("""
        import ctypes, resource
        from vault.crypto.hardening import harden_process

        libc = ctypes.CDLL(None)
        assert libc.prctl(3, 0, 0, 0, 0) == 1
        done = harden_process()
        assert done.not_dumpable and done.no_core and done.frees_overwritten
        assert libc.prctl(3, 0, 0, 0, 0) == 0
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        """)

    @pytest.mark.parametrize("size", [600, 1_000, 2_000, 40_000])
    def test_blocks_are_overwritten_when_they_are_freed(self, size):
        run(f"""
        import ctypes
        from vault.crypto.hardening import harden_process

        harden_process()
        libc = ctypes.PyDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        block, guard = libc.malloc({size}), libc.malloc(64)
        ctypes.memset(block, 0x41, {size})
        libc.free(block)
        assert b"A" * 32 not in ctypes.string_at(block, {size})
        """)
