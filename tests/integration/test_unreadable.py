"""What the client library can't parse is parked or passed over at its place, and everything else goes on."""

from aiokafka import TopicPartition

from eshop.contracts.messages import encode
from tests import raw_batches
from tests.builders import order_created
from tests.integration.test_delivery import Bench, bench, headers_of  # noqa: F401  a fixture

COUNT = 3


def good_record(user_id: str) -> raw_batches.Record:
    """Return an order's event as the relay publishes it."""
    body = order_created(user_id, 5)
    return user_id.encode(), encode(body), headers_of(body)


async def test_record_with_an_unreadable_header_name_is_parked_and_all_others_go_on(bench: Bench) -> None:  # noqa: F811
    await bench.run()
    partition = bench.partition_of("ann")
    records = [good_record("ann") for _ in range(COUNT)]
    base = await raw_batches.send(
        bench.producer, bench.topic, partition, raw_batches.with_bad_header_name(records, 1)
    )
    for number in range(12):
        await bench.put(order_created(f"user-{number}", 5))
    await bench.until_settled(12 + COUNT - 1)
    parked = bench.sql('SELECT topic, partition, "offset", cause, key, value FROM dead_letters')
    ((topic, at, offset, cause, key, value),) = parked
    assert (topic, at, offset, cause) == (bench.topic, partition, base + 1, "unreadable")
    assert bytes(key) == b"ann"
    assert raw_batches.BAD_NAME in bytes(value)
    await bench.until_committed(TopicPartition(bench.topic, partition), base + COUNT)
    await bench.stop()
