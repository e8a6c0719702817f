"""Makes `kafka.lock.txt`: `python -m eshop.cluster.lock` (`make lock` runs it). Needs the network."""

import tempfile
from pathlib import Path

from jgo.maven import Dependency, MavenContext, PythonResolver

from eshop.cluster.jars import KAFKA_VERSION, LOCK, Jar, sha256_of

KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
#: Kafka logs by slf4j; without a binding to log4j, a dependency of Kafka, the broker is silent.
BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
HEADER = f"# The jars of Kafka {KAFKA_VERSION} with its logging; made by `python -m eshop.cluster.lock`.\n"


def main() -> None:
    """Resolve Kafka and its logging binding, download them, and write versions and checksums."""
    with tempfile.TemporaryDirectory() as room:
        context = MavenContext(resolver=PythonResolver(), repo_cache=Path(room))
        found = _resolve(context, KAFKA)
        log4j = next(dep.version for dep in found.values() if dep.artifactId == "log4j-core")
        # Resolved apart, and after: together, log4j's own dependency management moves Kafka's clients to 3.9.
        found = _resolve(context, f"{BINDING}:{log4j}") | found
        lines = sorted(_lock(dependency).line() for dependency in found.values())
    LOCK.write_text(HEADER + "".join(f"{line}\n" for line in lines))


def _resolve(context: MavenContext, coordinate: str) -> dict[tuple[str, str], Dependency]:
    inputs, transitive = context.resolver.resolve([context.create_dependency(coordinate)])
    return {(dep.groupId, dep.artifactId): dep for dep in [*inputs, *transitive]}


def _lock(dependency: Dependency) -> Jar:
    path = Path(dependency.artifact.resolve())
    return Jar(
        dependency.groupId,
        dependency.artifactId,
        dependency.version,
        sha256_of(path),
        path.stat().st_size,
    )


if __name__ == "__main__":
    main()
