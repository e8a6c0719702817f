"""What the audit makes of a record, whatever is in it."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from eshop.audit.broker import read_record

TP = TopicPartition("t", 3)


@pytest.mark.parametrize("headers", [(), (("ce_id", None), ("ce_type", None)), (("ce_id", b"\xff"),)])
def test_record_without_an_id_or_a_type_is_a_record_all_the_same(
    headers: tuple[tuple[str, bytes | None], ...],
) -> None:
    read = SimpleNamespace(offset=7, headers=headers, key=None, value=None, timestamp=5)
    record = read_record(TP, read)
    assert (record.offset, record.message_id, record.type, record.order_id) == (7, None, "", None)
