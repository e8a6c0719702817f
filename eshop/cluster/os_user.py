"""Runs Postgres for a launcher that is root, which Postgres refuses: as a user that can reach the folder."""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict

from eshop.cluster.errors import ClusterError
from eshop.cluster.process import OsUser
from eshop.environment import child_environment

NAMES = ("postgres", "nobody")
#: Root's place for files that can't be in the data folder: unlike the temporary folder it outlives a restart
#: of the machine.
STATE = Path("/var/lib")
TRY_SECONDS_MAX = 10


class UserArguments(TypedDict):
    """Subprocess's arguments that choose the user of a child."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


def unprivileged_user() -> OsUser | None:
    """Return the user for Postgres if this process is root, else None: the process's own user is suitable."""
    if os.geteuid() != 0:
        return None
    for name in NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return OsUser(entry.pw_uid, entry.pw_gid)
    raise ClusterError(
        f"Postgres refuses to run as root and the system has no user {' or '.join(NAMES)}: "
        "make one, or start as another user"
    )


def can_enter(user: OsUser | None, folder: Path) -> bool:
    """Tell whether the user can enter the folder, by asking the system."""
    return _succeeds(user, ("/bin/sh", "-c", 'cd "$1" && ls >/dev/null', "sh", str(folder)))


def can_run(user: OsUser | None, binary: Path) -> bool:
    """Tell whether the user can run the binary (which must know ``--version``)."""
    return _succeeds(user, (str(binary), "--version"))


def _succeeds(user: OsUser | None, argv: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(
            argv,
            cwd="/",
            env=child_environment("C"),
            check=False,
            timeout=TRY_SECONDS_MAX,
            capture_output=True,
            **as_user(user),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def as_user(user: OsUser | None) -> UserArguments:
    """Return subprocess's arguments that make a child run as the user."""
    if user is None:
        return UserArguments(user=None, group=None, extra_groups=None)
    return UserArguments(user=user.uid, group=user.gid, extra_groups=[])


def reachable_folder(user: OsUser | None, wanted: Path, *, ephemeral: bool) -> Path:
    """Return the folder to use in place of ``wanted``, made, owned by the user and reachable by it.

    If ``wanted`` can't be reached (below root's home), it becomes a link to a reachable folder.
    """
    if user is None:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    if not wanted.is_symlink():
        wanted.mkdir(parents=True, exist_ok=True)
        os.chown(wanted, user.uid, user.gid)
        if can_enter(user, wanted):
            return wanted
        wanted.rmdir()
        wanted.symlink_to(_elsewhere(user, wanted, ephemeral=ephemeral))
    folder = wanted.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, user.uid, user.gid)
    if not can_enter(user, folder):
        raise ClusterError(
            f"Postgres' user {user.uid} can't reach {folder}: give it the way, or choose --data elsewhere"
        )
    return folder


def _elsewhere(user: OsUser, wanted: Path, *, ephemeral: bool) -> Path:
    name = f"eshop-{hashlib.sha256(str(wanted.absolute()).encode()).hexdigest()[:12]}"
    temporary = Path(tempfile.gettempdir())
    places = [temporary] if ephemeral else [STATE, temporary]
    for place in places:
        if place.is_dir() and os.access(place, os.W_OK) and can_enter(user, place):
            return place / name
    raise ClusterError(
        f"Postgres runs as user {user.uid}, which can't reach {wanted}: choose --data below a folder "
        "that others may enter"
    )


def remove_folder(folder: Path) -> None:
    """Delete a folder, and the target if it is a link."""
    target = folder.resolve()
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(target, ignore_errors=True)
