"""The environment of the process: the shop's settings, and a few facts of the machine. Nothing else.

Faust, libpq, gRPC, Java and Python have variables of their own. A machine may have set them for another
program, and they would override the shop's settings.

See docs/adr/0020-the-environment-is-not-ours.md.
"""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType

PREFIX = "ESHOP_"
#: The environment at the start of this process.
GIVEN: Mapping[str, str] = MappingProxyType(dict(os.environ))

#: Facts of the machine: places of programs, temporary files and certificates, the home folder, the time zone.
_FACTS = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "TZDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
#: These take effect before the first line of a program, so this process has them anyway. A child gets the
#: same: it may not find its libraries otherwise.
_LOADER = re.compile(r"(LD|DYLD)_[A-Z_]+|(DONT_|NO_)?FAKE[A-Z_]+")
_POSTGRES = re.compile(r"PG[A-Z]+")
#: Variables that Kubernetes gives every container, from a Service whose name begins with `eshop`: some by
#: their name alone, and a URL under a name that a setting could have.
_SERVICE = re.compile(
    r"ESHOP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"ESHOP_(\w+_)?PORT=(tcp|udp|sctp)://.+")
_FOREIGN: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "proxies (but for fetching Kafka's jars)": re.compile(r"(?i:(http|https|ftp|all|grpc|no)_proxy)"),
        "Faust's": re.compile(
            r"(AEROSPIKE|AGENT|APP|BROKER|CONSUMER|F|FAUST|NODE|PRODUCER|STREAM|TABLE|TOPIC|WEB|WORKER)_[A-Z_]+"
            r"|BLOCKING_TIMEOUT|CACHE_URL|CRASH_APP_[A-Z_]+|CYTHON_OPTIMIZATIONS|NO_CYTHON"
            r"|PROCESSING_GUARANTEE|RECOVERY_CONSISTENCY_CHECK|STORE_CHECK_EXISTS|TIMEZONE"
        ),
        "Postgres'": _POSTGRES,
        "gRPC's": re.compile(r"GRPC_[A-Z_]+"),
        "Java's and Kafka's": re.compile(
            r"_?JAVA_(TOOL_)?OPTIONS|JDK_JAVA_OPTIONS|KAFKA_[A-Z0-9_]+|CLASSPATH"
        ),
        "Python's": re.compile(r"PYTHON[A-Z0-9_]+"),
        "Kubernetes'": re.compile(rf"{_SERVICE.pattern}|ESHOP_(\w+_)?PORT"),
    }
)


def child_environment(locale: str) -> dict[str, str]:
    """Return the environment of a child process, in a locale that does not depend on the caller's."""
    passed_on = {name: value for name, value in os.environ.items() if name in _FACTS or is_in_effect(name)}
    return passed_on | {"LC_ALL": locale}


def own_variables() -> dict[str, str]:
    """Return the shop's own variables."""
    return {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}


def ignored() -> dict[str, list[str]]:
    """Return the names of given variables that are ignored, by their owner."""
    found = {
        whose: sorted(name for name in GIVEN if pattern.fullmatch(name))
        for whose, pattern in _FOREIGN.items()
    }
    return {whose: names for whose, names in found.items() if names}


def is_in_effect(name: str) -> bool:
    """Tell whether a variable has an effect that no program can escape."""
    return _LOADER.fullmatch(name) is not None


def is_of_kubernetes(name: str, value: str) -> bool:
    """Tell whether a variable is a Service's address, and not a mistyped setting."""
    return bool(_SERVICE.fullmatch(name) or _SERVICE_URL.fullmatch(f"{name}={value}"))


def drop_postgres_variables() -> None:
    """Remove libpq's variables from this process: the address alone decides about a connection.

    To be called before the first connection. libpq offers no other way.
    """
    for name in [name for name in os.environ if _POSTGRES.fullmatch(name)]:
        del os.environ[name]
