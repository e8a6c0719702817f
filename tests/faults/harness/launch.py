"""`eshop` with the harness's hand inside: `python -m tests.faults.harness.launch up …`.

The shop is the product's own, started and watched over by the product's own launcher. Added are: a `Link`
between each two parts that speak over the network, a way to change a service's environment for its next
start, and to hold that start back. Orders come as JSON lines over the Unix socket `ESHOP_FAULTS_CONTROL`.
"""

import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

import eshop.cli.up as up
import eshop.cluster.kafka as kafka
import eshop.cluster.launcher as launcher
import eshop.cluster.services as services
from eshop.cli.main import app
from eshop.cluster.embedded import Parts
from eshop.cluster.process import Program
from eshop.cluster.services import Plan, Service
from tests.faults.harness.links import HOST, Link, Mode

CONTROL = "ESHOP_FAULTS_CONTROL"
SEED = "ESHOP_FAULTS_SEED"
#: Not empty: the workers' relays try again sooner, see `tests.faults.harness.hurried`.
HURRIED = "ESHOP_FAULTS_HURRIED"
ROOT = Path(__file__).parents[3]
#: A start is held back no longer than this, whoever forgot about it.
HOLD_SECONDS_MAX = 90.0


class Harness:
    """Links, environments and holds of one shop, in a thread of its own beside the launcher's."""

    def __init__(self, control: Path, seed: int) -> None:
        self._control = control
        self._rng = random.Random(seed)
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._links: dict[str, Link] = {}
        self._environments: dict[str, dict[str, str]] = {}
        self._may_start: dict[str, threading.Event] = {}
        threading.Thread(target=self._loop.run_forever, name="links", daemon=True).start()
        threading.Thread(target=_end_with_the_caller, name="lifeline", daemon=True).start()

    def install(self) -> None:
        """Put the harness between the launcher and what it starts."""
        make_plan, service_env, program = services.make_plan, services.service_env, services.service_program

        def planned(*args: Any, **options: Any) -> Plan:
            plan = make_plan(*args, **options)
            asyncio.run_coroutine_threadsafe(self._open(plan), self._loop).result(10)
            advertised = f"advertised.listeners=PLAINTEXT://{{host}}:{self._links['kafka'].port}"
            before = "advertised.listeners=PLAINTEXT://{host}:{port}"
            assert before in kafka.PROPERTIES
            kafka.PROPERTIES = kafka.PROPERTIES.replace(before, advertised)
            return plan

        def environment(service: Service, plan: Plan, parts: Parts, folder: Path) -> dict[str, str]:
            env = service_env(service, plan, parts, folder)
            self._environments[service.name] = env
            self._lead_over_links(service, plan, env)
            if os.environ[HURRIED]:
                env["PYTHONPATH"] = str(ROOT)
            return env

        def gated(service: Service, plan: Plan, parts: Parts, data: Path) -> Program:
            may_start = self._may_start.setdefault(service.name, threading.Event())
            may_start.set()
            worker = program(service, plan, parts, data)
            argv = _hurried(worker.argv) if os.environ[HURRIED] and service.grpc_port else worker.argv
            return replace(worker, argv=argv, before_start=lambda: _wait(may_start))

        up.make_plan = planned  # type: ignore[attr-defined]
        services.service_env = environment
        launcher.service_program = gated  # type: ignore[attr-defined]

    async def _open(self, plan: Plan) -> None:
        wanted = {"kafka": plan.parts.kafka}
        for service in plan.services:
            if service.grpc_port:
                wanted[f"{service.name}>postgres"] = plan.parts.postgres
                wanted[f"gateways>{service.name}"] = service.grpc_port
            elif service.kind == "gateway":
                wanted[f"{service.name}>valkey"] = plan.parts.valkey
        for name, port in wanted.items():
            link = self._links[name] = Link(name, port, self._rng)
            await link.open()
        self._server = await asyncio.start_unix_server(self._serve, self._control)

    def _lead_over_links(self, service: Service, plan: Plan, env: dict[str, str]) -> None:
        env["ESHOP_KAFKA"] = f"{HOST}:{self._links['kafka'].port}"
        for kind in ("orders", "payments"):
            ports = [self._links[f"gateways>{one.name}"].port for one in plan.of_kind(kind)]
            env[f"ESHOP_{kind.upper()}_GRPC"] = ",".join(f"{HOST}:{port}" for port in ports)
        if link := self._links.get(f"{service.name}>postgres"):
            for name in ("ESHOP_DATABASE_URL", "ESHOP_ADMIN_DATABASE_URL"):
                env[name] = env[name].replace(f":{plan.parts.postgres}/", f":{link.port}/")
        if link := self._links.get(f"{service.name}>valkey"):
            env["ESHOP_REDIS_URL"] = env["ESHOP_REDIS_URL"].replace(
                f":{plan.parts.valkey}/", f":{link.port}/"
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            told = json.loads(line)
            deed: Callable[..., object] = getattr(self, f"do_{told.pop('do')}")
            writer.write(json.dumps(deed(**told)).encode() + b"\n")
        writer.close()

    def do_mode(self, link: str, mode: str) -> dict[str, int]:
        """Change a link; return what it has carried, and what connections it has."""
        changed = self._links[link]
        connections = changed.connections()
        changed.set_mode(Mode(mode))
        return {"bytes": changed.carried_bytes, "connections": connections}

    def do_links(self) -> list[str]:
        """Return the links' names."""
        return list(self._links)

    def do_environment(self, name: str, changes: dict[str, str | None]) -> dict[str, str]:
        """Change what a service will be started with the next time; return all of it."""
        env = self._environments[name]
        for key, value in changes.items():
            if value is None:
                env.pop(key, None)
            else:
                env[key] = value
        return env

    def do_hold(self, name: str) -> None:
        """Have the supervisor wait before it starts the service the next time."""
        self._may_start[name].clear()

    def do_release(self, name: str) -> None:
        """Let it start."""
        self._may_start[name].set()


def _hurried(argv: tuple[str, ...]) -> tuple[str, ...]:
    module = argv.index("faust")
    return (*argv[:module], "tests.faults.harness.hurried", *argv[module + 1 :])


def _end_with_the_caller() -> None:
    """Stop the shop when who started it is gone, however it went: the pipe to us ends then."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(may_start: threading.Event) -> None:
    may_start.wait(HOLD_SECONDS_MAX)


def main() -> None:
    """Run the `eshop` command with the harness inside."""
    # The terminal's Ctrl-C is for the harness, which then ends the shop by closing the pipe.
    os.setpgrp()
    Harness(Path(os.environ[CONTROL]), int(os.environ[SEED])).install()
    app()


if __name__ == "__main__":
    main()
