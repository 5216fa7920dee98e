from __future__ import annotations

import os

import pytest

from hsm.secretfile import MAX_SECRET, SecretSource, SecretSourceError


def _file(tmp_path, content: bytes, mode: int = 0o400):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return SecretSource.parse(f"file:{path}")


def test_a_file_gives_its_content_without_the_line_end_and_it_is_wiped(tmp_path):
    with _file(tmp_path, b"pi n\r\n").read() as secret:
        assert secret == b"pi n"
    assert secret == bytes(4)


def test_it_is_wiped_when_the_block_raises(tmp_path):
    with pytest.raises(KeyError), _file(tmp_path, b"pin").read() as secret:
        raise KeyError
    assert secret == bytes(3)


def test_a_credential_comes_from_systemds_directory(tmp_path, monkeypatch):
    (tmp_path / "hsm-pin").write_bytes(b"p")
    (tmp_path / "hsm-pin").chmod(0o400)
    source = SecretSource.parse("credential:hsm-pin")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretSourceError, match="CREDENTIALS_DIRECTORY"), source.read():
        pass
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with source.read() as secret:
        assert secret == b"p"


def test_a_descriptor_that_can_be_rewound_is_read_twice():
    descriptor = os.memfd_create("pin")
    os.write(descriptor, b"1234")
    for _ in range(2):
        with SecretSource.parse(f"fd:{descriptor}").read() as secret:
            assert secret == b"1234"
    os.close(descriptor)


def test_a_pipe_is_read_once():
    read, write = os.pipe()
    os.write(write, b"1234\n")
    os.close(write)
    source = SecretSource.parse(f"fd:{read}")
    with source.read() as secret:
        assert secret == b"1234"
    with pytest.raises(SecretSourceError, match="empty"), source.read():
        pass
    os.close(read)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"", 0o400, "empty"),
        (b"\n\n", 0o400, "empty"),
        (b"x" * (MAX_SECRET + 1), 0o400, "longer"),
        (b"x", 0o404, "everyone"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, mode, says):
    with pytest.raises(SecretSourceError, match=says), _file(tmp_path, content, mode).read():
        pass


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(SecretSourceError), SecretSource.parse(str(tmp_path)).read():
        pass


@pytest.mark.parametrize(
    "text", ["", "1234", "env:PIN", "file:relative", "fd:-1", "fd:x", "credential:../x", "credential:"]
)
def test_other_places_are_refused_without_being_repeated(text):
    with pytest.raises(SecretSourceError) as caught:
        SecretSource.parse(text)
    assert "1234" not in str(caught.value)
