"""Kafka 4.2 as a single node in KRaft mode, run by Java from the locked jars."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from eshop.cluster.errors import ClusterError
from eshop.cluster.jars import class_path, locked_jars
from eshop.cluster.java import Java
from eshop.cluster.ports import HOST
from eshop.cluster.probes import kafka_is_ready
from eshop.cluster.process import Program
from eshop.environment import child_environment

#: Fixed, so that a repeated format after an interruption makes the same cluster.
CLUSTER_ID = "ZXNob3AtZGV2LWNsdXN0ZQ"
#: The quick compiler only: ready after 2.9 s and 3.0 s of CPU in place of 5.9 s and 4.9 s (two busy cores).
JVM = ("-Xms128m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError", "-XX:TieredStopAtLevel=1")
LOGGING_FILE = "log4j2.properties"
STOP_SECONDS_MAX = 15.0
FORMAT_SECONDS_MAX = 60.0

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dirs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
log.cleaner.dedupe.buffer.size=16777216
"""

#: To standard output, which the launcher keeps in the log file. Without the date: people need only the time.
LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1}: %m%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config
logger.config.level = WARN
logger.server.name = kafka.server.KafkaConfig
logger.server.level = WARN
"""


@dataclass(frozen=True, slots=True)
class Kafka:
    """A node with its folder, its two ports, the folder of its jars, and its Java."""

    folder: Path
    port: int
    controller_port: int
    jars: Path
    java: Java

    @property
    def address(self) -> str:
        """The bootstrap server."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Write the configuration and, the first time, format the log folder (a second or two)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / LOGGING_FILE).write_text(LOGGING)
        if not self._logs.exists():
            self._format()
        self._write_properties(self._logs)

    def program(self) -> Program:
        """Return how to run the node."""
        return Program(
            "kafka",
            self._java("kafka.Kafka", self._properties.name),
            self.folder,
            lambda: kafka_is_ready(self.port),
            env=_environment(),
            stop_seconds_max=STOP_SECONDS_MAX,
        )

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _write_properties(self, logs: Path) -> None:
        # By its name alone, since Kafka runs in its folder: Java reads this file as Latin-1, and a comma in
        # the folder's path would end the name.
        self._properties.write_text(
            PROPERTIES.format(
                host=HOST, port=self.port, controller_port=self.controller_port, log_dirs=logs.name
            )
        )

    def _format(self) -> None:
        """Format under another name and rename: an interruption leaves no half-formatted folder."""
        staging = self.folder / "logs.new"
        shutil.rmtree(staging, ignore_errors=True)
        self._write_properties(staging)
        arguments = ("format", "-t", CLUSTER_ID, "-c", self._properties.name)
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", *arguments),
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=FORMAT_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(
                f"Kafka could not format its folder:\n{(done.stdout + done.stderr).strip()[-2000:]}"
            )
        staging.rename(self._logs)

    def _java(self, main_class: str, *arguments: str) -> tuple[str, ...]:
        logging = f"-Dlog4j2.configurationFile={LOGGING_FILE}"
        jars = class_path(self.jars, locked_jars())
        return (str(self.java.path), *JVM, logging, "-cp", jars, main_class, *arguments)


def _environment() -> dict[str, str]:
    """Return Java's: in the C locale Java can't open a folder with a letter outside ASCII."""
    return child_environment("C.UTF-8")
