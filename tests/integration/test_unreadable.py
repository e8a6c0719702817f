"""What the client library can't parse is parked at its place, and everything else goes on."""

import json

from aiokafka import TopicPartition

from eshop.contracts.messages import encode
from eshop.handlers.parking import BURST_MAX
from eshop.kafka.log import next_offset
from tests.integration.test_delivery import Bench, bench, headers_of  # noqa: F401  a fixture
from tests.support import record_batches as raw_batches
from tests.support.builders import order_created

COUNT = 3
OTHERS = 12


def records_of(user_id: str, count: int = COUNT) -> list[raw_batches.Record]:
    """Return events of new orders as the relay publishes them."""
    bodies = [order_created(user_id, 5) for _ in range(count)]
    return [(user_id.encode(), encode(body), headers_of(body)) for body in bodies]


async def put_others(bench: Bench) -> None:  # noqa: F811
    """Publish an order each of many users, and one more of the first user."""
    for number in range(OTHERS):
        await bench.put(order_created(f"user-{number}", 5))
    await bench.put(order_created("ann", 5))


async def until_over(bench: Bench, settled: int, end: int) -> None:  # noqa: F811
    """Wait until the orders are settled and the partition is done; then start again, and see it go on."""
    partition = TopicPartition(bench.topic, bench.partition_of("ann"))
    await bench.until_settled(settled)
    await bench.until_committed(partition, end)
    await bench.stop()
    await bench.run()
    await bench.put(order_created("ann", 5))
    await bench.until_settled(settled + 1)
    assert "seeks back" not in bench.log
    await bench.stop()


async def test_record_with_a_header_name_that_is_no_text_is_parked_and_all_others_go_on(
    bench: Bench,  # noqa: F811
) -> None:
    await bench.run()
    at = bench.partition_of("ann")
    base = await raw_batches.send(
        bench.producer, bench.topic, at, raw_batches.with_bad_header_name(records_of("ann"), 1)
    )
    await put_others(bench)
    await bench.until_settled(COUNT - 1 + OTHERS + 1)
    ((topic, partition, offset, cause, user_id, key, value),) = bench.sql(
        'SELECT topic, partition, "offset", cause, user_id, key, value FROM dead_letters'
    )
    assert (topic, partition, offset, cause, user_id) == (bench.topic, at, base + 1, "unreadable", "ann")
    assert bytes(key) == b"ann"
    assert raw_batches.BAD_NAME in bytes(value)
    (announced,) = bench.sql("SELECT body FROM outbox WHERE type = 'eshop.payments.DeadLetterParked'")
    body = json.loads(announced[0])
    assert (body["user_id"], body["partition"], body["offset"]) == ("ann", at, base + 1)
    (end,) = bench.sql(f"SELECT next_offset FROM watermarks WHERE partition = {at}")[0]
    await until_over(bench, COUNT - 1 + OTHERS + 1, end)


async def test_batch_that_can_not_be_uncompressed_is_parked_as_one_and_its_offsets_are_a_known_hole(
    bench: Bench,  # noqa: F811
) -> None:
    await bench.run()
    at = bench.partition_of("ann")
    # Two: Faust takes offset 0 for none, and would commit past a hole right behind it only after a restart.
    for _ in range(2):
        await bench.put(order_created("ann", 5))
    bad = raw_batches.with_bad_lz4(records_of("ann"))
    base = await raw_batches.send(bench.producer, bench.topic, at, bad)
    await put_others(bench)
    await bench.until_settled(2 + OTHERS + 1)
    ((offset, cause, error, value),) = bench.sql('SELECT "offset", cause, error, value FROM dead_letters')
    assert (offset, cause) == (base + COUNT - 1, "unreadable")
    assert error.startswith(f"offsets {base} to {base + COUNT - 1} can't be parsed: ")
    assert bytes(value)[raw_batches.HEADER_BYTES :] == bad[raw_batches.HEADER_BYTES :]
    assert f"offsets {base} to {base + COUNT - 2} were passed over, where the log has no message" in bench.log
    (end,) = bench.sql(f"SELECT next_offset FROM watermarks WHERE partition = {at}")[0]
    await until_over(bench, 2 + OTHERS + 1, end)


async def test_batch_that_was_damaged_on_the_brokers_disk_is_parked_as_one(
    bench: Bench,  # noqa: F811
) -> None:
    at = bench.partition_of("ann")
    for number in range(3):
        key, _, headers = records_of("ann", 1)[0]
        value = b"disk" if number == 1 else encode(order_created("ann", 5))
        await bench.put_raw(key or b"", value, list(headers), at)  # type: ignore[arg-type]
    logs = bench.cluster._folder.path / "kafka" / "logs"
    raw_batches.damage_on_disk(logs, bench.topic, at, b"disk", b"dusk")
    await bench.run()
    await put_others(bench)
    await bench.until_settled(2 + OTHERS + 1)
    ((offset, cause, error),) = bench.sql('SELECT "offset", cause, error FROM dead_letters')
    assert (offset, cause) == (1, "unreadable")
    assert "Invalid CRC" in error
    assert "offset 1 is fetched again" in bench.log
    (end,) = bench.sql(f"SELECT next_offset FROM watermarks WHERE partition = {at}")[0]
    await until_over(bench, 2 + OTHERS + 1, end)


async def test_burst_of_unreadable_records_stops_its_partition_and_no_other(bench: Bench) -> None:  # noqa: F811
    await bench.run()
    at = bench.partition_of("ann")
    for _ in range(BURST_MAX + 1):
        await raw_batches.send(
            bench.producer, bench.topic, at, raw_batches.with_bad_header_name(records_of("ann", 1), 0)
        )
    await bench.until_logged("see `eshop deadletters list`")
    other = next(u for u in (f"user-{n}" for n in range(100)) if bench.partition_of(u) != at)
    await bench.put(order_created(other, 5))
    await bench.until_settled(1)
    bench.sql("UPDATE dead_letters SET status = 'discarded', resolved_at = now()")
    await bench.put(order_created("ann", 5))
    await bench.until_settled(2)
    assert bench.sql("SELECT count(*) FROM dead_letters") == [(BURST_MAX + 1,)]
    await bench.stop()


async def test_log_has_an_unreadable_batch_at_its_last_offset(bench: Bench) -> None:  # noqa: F811
    for make in (raw_batches.with_bad_lz4, raw_batches.batch):
        await raw_batches.send(bench.producer, bench.topic, 0, make(records_of("ann")))
    found = [await next_offset(bench.cluster.kafka, bench.topic, 0, offset) for offset in range(5)]
    assert found == [2, 2, 2, 3, 4]
