"""An OTLP/gRPC receiver that writes down every request it gets; `peers.counting_receiver` runs it.

A process of its own, so that no gRPC thread lives in the process of the tests, which may fork.
Of the project's own code it uses nothing.

    receiver.py FILE --status N --response HEX --delay SECONDS

prints the port it listens on. A record in FILE: the lengths of method and request (little-endian,
4 bytes each), then the two. It is there before the request is answered.
"""

from __future__ import annotations

import argparse
import struct
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import BinaryIO

import grpc


class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Takes every method of every service, as bytes in and bytes out."""

    def __init__(self, file: BinaryIO, status: int, response: bytes, delay: float) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._code = next(code for code in grpc.StatusCode if code.value[0] == status)
        self._response = response
        self._delay = delay

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = call.method.encode()

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            with self._lock:
                self._file.write(struct.pack("<II", len(method), len(request)) + method + request)
                self._file.flush()
            time.sleep(self._delay)
            if self._code is not grpc.StatusCode.OK:
                context.abort(self._code, "as the test asked")
            return self._response

        return grpc.unary_unary_rpc_method_handler(answer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--response", type=bytes.fromhex, default=b"")
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    with options.file.open("wb") as file:
        handler = Handler(file, options.status, options.response, options.delay)
        server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(port, flush=True)
        server.wait_for_termination()


if __name__ == "__main__":
    main()
