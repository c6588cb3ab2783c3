"""The sink as a process. Prints its port on the first line; ends when its standard input does.

Usage: python -m benchmarks.checkpoint.sink --memory BYTES
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading

from benchmarks.checkpoint.sink.memory import Blocks
from benchmarks.checkpoint.sink.service import Service
from benchmarks.checkpoint.sink.wire import Connection, Gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, required=True, help="bytes")
    service = Service(Blocks(parser.parse_args().memory))
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=_until_left_alone, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_serve, args=(service, sock), daemon=True).start()


def _serve(service: Service, sock: socket.socket) -> None:
    with sock:
        try:
            service.serve(Connection(sock))
        except (Gone, ConnectionError, BrokenPipeError):
            return


def _until_left_alone() -> None:
    sys.stdin.buffer.read()  # ends with the process that has started us, however that one ends
    os._exit(0)


if __name__ == "__main__":
    main()
