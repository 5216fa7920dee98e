"""A bare echo on the same stack as the vault: grpc.aio, uvloop, mutual TLS 1.3, the same channel options.

python -m bench.echo PKI_FOLDER     prints its port
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vault.server.worker import CIPHER_SUITES

os.environ.update(CIPHER_SUITES)

import grpc
import uvloop

from vault.server.app import OPTIONS


async def _unary(request: bytes, _context: object) -> bytes:
    return _answer(request)


async def _stream(_requests: object, context: grpc.aio.ServicerContext) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(_answer(message))


def _answer(request: bytes) -> bytes:
    """As many bytes as the first four of the request say."""
    return bytes(int.from_bytes(request[:4], "big"))


async def main(pki: Path) -> None:
    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Stream": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    pair = ((pki / "server-key.pem").read_bytes(), (pki / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], (pki / "ca.pem").read_bytes(), require_client_auth=True)
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
