"""Kafka's jars: pinned by version and sha256 in `kafka.lock.txt`, fetched once per OS user.

A jar is downloaded under another name, checked, and moved into place: an interruption leaves nothing half.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from eshop.cluster.errors import ClusterError

KAFKA_VERSION = "4.2.0"
LOCK = Path(__file__).with_name("kafka.lock.txt")
DOWNLOADS_AT_ONCE = 6
ATTEMPTS_MAX = 3
RETRY_SECONDS = 1.0
HTTP_TIMEOUT_SECONDS = 30
ABANDONED_SECONDS = 3600

#: Called for every piece of a download with its number of bytes.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Jar:
    """A pinned file."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """The name of the file in the cache."""
        return f"{self.artifact}-{self.version}.jar"

    def line(self) -> str:
        """Return the jar's line of the lock file."""
        return f"{self.group}:{self.artifact}:{self.version} sha256:{self.sha256} {self.size_bytes}"


def locked_jars(lock: Path = LOCK) -> tuple[Jar, ...]:
    """Read the lock file."""
    lines = (line for line in lock.read_text().splitlines() if line and not line.startswith("#"))
    return tuple(map(_parse, lines))


def _parse(line: str) -> Jar:
    name, digest, size = line.split()
    group, artifact, version = name.split(":")
    return Jar(group, artifact, version, digest.removeprefix("sha256:"), int(size))


def cache_folder(chosen: Path | None = None) -> Path:
    """Return the folder of the jars, shared by all data folders of an OS user."""
    return (chosen or platformdirs.user_cache_path("eshop")) / f"kafka-{KAFKA_VERSION}"


def missing_jars(folder: Path, jars: tuple[Jar, ...]) -> tuple[Jar, ...]:
    """Return the jars whose pinned content is not in the folder."""
    return tuple(jar for jar in jars if not _is_whole(folder / jar.file_name, jar))


def fetch_jars(folder: Path, jars: tuple[Jar, ...], progress: Progress) -> None:
    """Download jars into the folder, a few at once; raise ClusterError if one is not available.

    Needs the network. Two processes may do it at the same time.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-").cleanup()
    except OSError as error:
        raise ClusterError(
            f"cannot write to the folder of jars {folder}: {error.strerror}; choose another with ESHOP_CACHE"
        ) from error
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as staging,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        list(pool.map(lambda jar: _fetch_one(folder, Path(staging), jar, progress), jars))


def _remove_abandoned(folder: Path) -> None:
    """Remove files of killed downloads; younger files may belong to a running download."""
    for staging in folder.glob(".fetch-*"):
        if time.time() - staging.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(staging, ignore_errors=True)


def class_path(folder: Path, jars: tuple[Jar, ...]) -> str:
    """Return Java's class path of exactly the locked jars."""
    if ":" in str(folder):
        raise ClusterError(
            f"Java can't read jars below {folder}, for its colon: choose another with ESHOP_CACHE"
        )
    return ":".join(str(folder / jar.file_name) for jar in jars)


def _is_whole(path: Path, jar: Jar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size_bytes and sha256_of(path) == jar.sha256


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_one(folder: Path, staging: Path, jar: Jar, progress: Progress) -> None:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        room = staging / f"{jar.artifact}-{attempt}"
        try:
            path = _download(room, jar, progress)
            break
        except (OSError, RuntimeError) as error:  # what requests and jgo raise
            if attempt == ATTEMPTS_MAX:
                reason = str(error) if type(error) is OSError else type(error).__name__
                raise ClusterError(
                    f"cannot download {jar.artifact} {jar.version}: {reason}. "
                    "Check the network and start again."
                ) from error
            time.sleep(RETRY_SECONDS * attempt)
    found = sha256_of(path)
    if found != jar.sha256:
        raise ClusterError(
            f"{jar.file_name} has sha256 {found}, the lock says {jar.sha256}: it was not kept. Start again."
        )
    path.replace(folder / jar.file_name)


def _download(room: Path, jar: Jar, progress: Progress) -> Path:
    # jgo takes half a second to import, and a start with a warm cache does not need it.
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    @contextmanager
    def bar(_file_name: str, _size_bytes: int) -> Iterator[Progress]:
        yield progress

    shutil.rmtree(room, ignore_errors=True)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=bar), repo_cache=room, timeout=HTTP_TIMEOUT_SECONDS
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    return Path(artifact.resolve())
