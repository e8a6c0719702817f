"""What can be wrong with topics and groups: read again, passed over, poisoned."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from eshop.contracts.services import SERVICES
from eshop.contracts.topics import PARTITIONS
from tests.faults.harness.fault import Fault, Fired, Scene
from tests.faults.harness.world import NotShown, World
from tests.support import record_batches as raw_batches
from tests.support.builders import Partition, captured, new_id, order_created
from tests.support.worker_process import commit_when_empty

READS = {name: service.reads[0].name for name, service in SERVICES.items()}
#: How many messages must be passed over, so that it is worth looking for them.
PASSED_OVER = {"orders": 5, "payments": 50}
PASSED_OVER_SECONDS_MAX = 20.0
PARKED_SECONDS_MAX = 30.0
#: A worker with a name of its own is in its group for a session's length after it has gone.
EMPTY_SECONDS_MAX = 20.0


@asynccontextmanager
async def group(world: World, service: str) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """Yield a consumer that may read and write the offsets of a service's group while that is empty."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.kafka, group_id=f"eshop-{service}", enable_auto_commit=False
    )
    partitions = [TopicPartition(READS[service], number) for number in range(PARTITIONS)]
    await consumer.start()
    try:
        consumer.assign(partitions)
        yield consumer, partitions
    finally:
        await consumer.stop()


async def committed(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the group's offsets."""
    return {partition: await consumer.committed(partition) or 0 for partition in partitions}


async def commit(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    """Set the group's offsets, as soon as it misses the workers that were stopped."""
    async with asyncio.timeout(EMPTY_SECONDS_MAX):
        await commit_when_empty(consumer, offsets)


class Replayed(Fault):
    """A group's offsets go back to the start: everything on the topic comes again.

    A new order waits until all of it has: that takes the longer, the more there is.
    """

    is_timed = False
    recovery_seconds_max = 1_800.0

    def __init__(self, service: str) -> None:
        self.name = f"{service}: offsets reset to the start"
        self._service = service

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        async with world.stopped(world.names(self._service)), group(world, self._service) as (consumer, all_):
            before = sum((await committed(consumer, all_)).values())
            await commit(consumer, dict.fromkeys(all_, 0))
        if not before:
            raise NotShown("there was nothing to replay")
        return Fired(evidence=f"{before} messages come again")


class MovedAhead(Fault):
    """A group's offsets go to the end of the log, over messages nobody has handled."""

    def __init__(self, service: str) -> None:
        self.name = f"{service}: offsets moved ahead"
        self._service = service

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        async with world.stopped(world.names(self._service)), group(world, self._service) as (consumer, all_):
            end_at = time.monotonic() + PASSED_OVER_SECONDS_MAX
            passed_over = 0
            while passed_over < PASSED_OVER[self._service]:
                if time.monotonic() > end_at:
                    raise NotShown(f"only {passed_over} messages could be passed over")
                before, ends = await committed(consumer, all_), await consumer.end_offsets(all_)
                passed_over = sum(ends[one] - before[one] for one in all_)
            await commit(consumer, ends)
        return Fired(evidence=f"{passed_over} messages passed over")


class Poison(Fault):
    """Poison messages, one to a partition: each is parked, and everything else flows."""

    def __init__(self, service: str) -> None:
        self.name = f"poison for {service}"
        self._service = service

    async def fire(self, scene: Scene) -> Fired:
        world = scene.world
        messages = self._messages(scene.probe.users)
        bad: list[raw_batches.Record] = [(b"somebody", b"something", [])]
        batches = [raw_batches.with_bad_header_name(bad, 0), raw_batches.with_bad_lz4(bad * 3)]
        poisonous = len(messages) + len(batches)
        before = await self._parked(world)
        producer = AIOKafkaProducer(bootstrap_servers=world.kafka, max_request_size=2 * 1024 * 1024)
        await producer.start()
        try:
            for number, (key, value, headers) in enumerate(messages):
                await producer.send_and_wait(
                    READS[self._service], value, key=key, partition=number, headers=headers
                )
            for number, batch in enumerate(batches, len(messages)):
                await raw_batches.send(producer, READS[self._service], number, batch)
        except KafkaError as error:
            raise NotShown(f"the broker did not take the poison: {error!r}") from error
        finally:
            await producer.stop()
        ended_at = time.monotonic()
        parked = 0
        while parked < poisonous:
            if time.monotonic() > ended_at + PARKED_SECONDS_MAX:
                raise NotShown(f"{parked} of {poisonous} poisonous messages were parked")
            parked = await self._parked(world) - before
        return Fired(evidence=f"{parked} parked", ended_at=ended_at)

    async def _parked(self, world: World) -> int:
        return await world.number(self._service, "SELECT count(*) FROM dead_letters WHERE status = 'parked'")

    def _messages(self, users: list[str]) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]:
        """Return each kind of poison, made from a message that would be good."""
        made = []
        for number in range(len(users)):
            user = users[number]
            body = order_created(user, 1) if self._service == "payments" else captured(user, new_id(), 1)
            message = Partition().message(body)
            made.append((user.encode(), body.model_dump_json().encode(), message.envelope.to_headers()))

        def without(number: int, name: str) -> list[tuple[str, bytes]]:
            return [header for header in made[number][2] if header[0] != name]

        def other(number: int, name: str, value: bytes) -> list[tuple[str, bytes]]:
            return [*without(number, name), (name, value)]

        schema = dict(made[2][2])["ce_dataschema"]
        huge = json.dumps(json.loads(made[6][1]) | {"amount_minor": 10**30}).encode()
        return [
            (made[0][0], b'{"user_id": ', made[0][2]),
            (made[1][0], made[1][1], other(1, "ce_dataschema", b"eshop/nobody/v1/Nothing")),
            (made[2][0], made[2][1], other(2, "ce_dataschema", schema.replace(b"/v1/", b"/v99/"))),
            (made[3][0], made[3][1], without(3, "ce_id")),
            (made[4][0], None, made[4][2]),
            (made[5][0], b'{"user_id": "' + b"x" * 1_000_000 + b'"}', made[5][2]),
            (made[6][0], huge, made[6][2]),
            (b"somebody else", made[7][1], made[7][2]),
        ]
