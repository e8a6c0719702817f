"""Reading on past what can't be parsed, by both of aiokafka's parsers."""

from dataclasses import dataclass

import pytest
from aiokafka import ConsumerRecord, TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.record import default_records, legacy_records, memory_records, util
from hypothesis import given
from hypothesis import strategies as st

from eshop.contracts.unreadable import Unreadable
from eshop.kafka import record_batches
from eshop.kafka.record_batches import CODECS, broken_codecs, tolerate_unreadable
from tests.support import record_batches as raw_batches
from tests.support.record_batches import (
    HEADER_BYTES,
    Record,
    batch,
    with_bad_header_name,
    with_bad_lz4,
    with_codec,
)

TP = TopicPartition("t", 3)
RECORDS: list[Record] = [(b"ann", b"value %d" % number, [("name", b"text")]) for number in range(4)]
COUNT = len(RECORDS)
MAGIC_AT, LENGTH_AT, DELTA_AT = 16, 8, 23


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have aiokafka read by its parser in C, or by that in Python."""
    for name in ("MemoryRecords", "PartitionRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))  # put back in the end
    monkeypatch.setattr(record_batches, "_suspects", record_batches._suspects.copy())
    record_batches._suspects.clear()
    if request.param == "Python":
        monkeypatch.setattr(record_batches, "MemoryRecords", memory_records._MemoryRecordsPy)
        monkeypatch.setattr(record_batches, "DefaultRecordBatch", default_records._DefaultRecordBatchPy)
        # As it is without the extension: that in C reads past the end of what it is given.
        read_msg = default_records._DefaultRecordBatchPy._read_msg
        monkeypatch.setattr(read_msg, "__defaults__", (util.decode_varint_py,))
        monkeypatch.setattr(memory_records, "DefaultRecordBatch", default_records._DefaultRecordBatchPy)
        monkeypatch.setattr(memory_records, "LegacyRecordBatch", legacy_records._LegacyRecordBatchPy)
    tolerate_unreadable()


@dataclass
class Fetch:
    """What a consumer makes of a fetch: the records, and from where it reads on."""

    records: list[ConsumerRecord]
    next_offset: int

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]

    @property
    def unreadable(self) -> dict[int, bytes]:
        return {one.offset: bytes(one.value) for one in self.records if isinstance(one.value, Unreadable)}


def fetch(data: bytes, offset: int = 0) -> Fetch:
    """Read what the broker gave for the offset, as aiokafka's fetcher does."""
    batches = fetcher.MemoryRecords(data)
    assert batches.has_next() == bool(data)
    records = fetcher.PartitionRecords(TP, batches, [], offset, None, None, True, 0)
    return Fetch(list(records), records.next_fetch_offset)


def damaged(data: bytes, at: int, value: int | None = None) -> bytes:
    """Return the data with a byte changed."""
    made = bytearray(data)
    made[at] = made[at] ^ 0xFF if value is None else value
    return bytes(made)


def test_every_codec_gives_back_what_it_was_given() -> None:
    assert broken_codecs() == []
    assert set(CODECS) == set(raw_batches.CODECS) - {"none"}


@pytest.mark.parametrize("name", raw_batches.CODECS)
def test_batch_of_every_codec_is_read(name: str) -> None:
    large: list[Record] = [(key, b"text " * 200, headers) for key, _, headers in RECORDS]
    read = fetch(batch(large, name, base_offset=7), 7)
    assert read.offsets == [7, 8, 9, 10]
    assert [(one.key, one.value, list(one.headers)) for one in read.records] == large


def test_missing_codec_is_no_reason_to_give_messages_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "cramjam", None)
    assert broken_codecs() == ["snappy", "lz4", "zstd"]
    with pytest.raises(ImportError, match="snappy, lz4, zstd"):
        tolerate_unreadable()


@pytest.mark.parametrize("bad", range(COUNT))
def test_header_name_that_is_no_text_costs_its_record_only(bad: int) -> None:
    data = with_bad_header_name(RECORDS, bad, base_offset=5) + batch(RECORDS, base_offset=9)
    read = fetch(data, 5)
    assert (read.offsets, read.next_offset) == ([*range(5, 13)], 13)
    (raw,) = read.unreadable.values()
    assert raw_batches.BAD_NAME in raw
    assert b"value %d" % bad in raw
    lost = read.records[bad]
    assert (lost.offset, lost.key, lost.headers) == (5 + bad, b"ann", ())
    assert lost.value.error.startswith(f"offset {5 + bad} can't be parsed: ")
    assert read.records[bad - 1].timestamp == lost.timestamp


@pytest.mark.parametrize("name", CODECS)
def test_header_name_that_is_no_text_is_found_in_a_compressed_batch(name: str) -> None:
    plain = with_bad_header_name(RECORDS, 1)
    content = getattr(codec, f"{name}_encode")(plain[HEADER_BYTES:])
    read = fetch(with_codec(plain, raw_batches.CODECS[name], content))
    assert (read.offsets, list(read.unreadable)) == ([0, 1, 2, 3], [1])


@pytest.mark.parametrize("start", range(COUNT + 1))
def test_fetch_from_the_middle_of_a_batch_gives_nothing_before_it(start: int) -> None:
    read = fetch(with_bad_header_name(RECORDS, 2), start)
    assert (read.offsets, read.next_offset) == ([*range(start, COUNT)], COUNT)


def test_records_that_can_not_be_told_apart_come_as_one_at_the_last_offset() -> None:
    data = bytearray(batch(RECORDS))
    second = HEADER_BYTES + 1 + data[HEADER_BYTES] // 2
    data[second] = 0x7F  # its length is a negative number
    read = fetch(raw_batches.sealed(bytes(data)) + batch(RECORDS, base_offset=COUNT))
    assert (read.offsets, read.next_offset) == ([0, 3, 4, 5, 6, 7], 8)
    assert read.unreadable == {3: bytes(data[second:])}
    assert read.records[1].value.error.startswith("offsets 1 to 3 can't be parsed: ")


@pytest.mark.parametrize(
    "data",
    [with_bad_lz4(RECORDS, 4), with_codec(batch(RECORDS, base_offset=4), 5, b"of the future")],
    ids=["bad LZ4", "unknown codec"],
)
def test_batch_that_can_not_be_uncompressed_comes_as_one_at_its_last_offset(data: bytes) -> None:
    read = fetch(batch(RECORDS) + data + batch(RECORDS, base_offset=8))
    assert (read.offsets, read.next_offset) == ([0, 1, 2, 3, 7, 8, 9, 10, 11], 12)
    assert read.unreadable == {7: data}
    assert read.records[4].value.error.startswith("offsets 4 to 7 can't be parsed: ")
    # As the log's next record behind offset 4, 5 and 6, this closes their gap.
    assert [fetch(data, start).offsets for start in (4, 5, 6, 7)] == [[7]] * 4


def test_record_that_says_it_is_behind_its_batch_is_not_believed() -> None:
    data = bytearray(batch(RECORDS))
    second = HEADER_BYTES + 1 + data[HEADER_BYTES] // 2
    data[second + 3] = 0x7E  # the offset, after length, attributes and time: 63
    read = fetch(raw_batches.sealed(bytes(data)) + batch(RECORDS, base_offset=COUNT))
    assert (read.offsets, list(read.unreadable)) == ([*range(2 * COUNT)], [1])
    assert "behind its batch" in read.records[1].value.error


BEFORE, BROKEN, BEHIND = batch(RECORDS), batch(RECORDS, base_offset=4), batch(RECORDS, base_offset=8)
DAMAGES = {
    "a value": damaged(BROKEN, len(BROKEN) - 3),
    "format 0": damaged(BROKEN, MAGIC_AT, 0),
    "format 1": damaged(BROKEN, MAGIC_AT, 1),
    "format 3": damaged(BROKEN, MAGIC_AT, 3),
    "a length far too large": damaged(BROKEN, LENGTH_AT, 0x7F),
    "a negative length": damaged(BROKEN, LENGTH_AT, 0xFF),
    "a length too small": damaged(BROKEN, LENGTH_AT + 3, 60),
}


@pytest.mark.parametrize("broken", DAMAGES.values(), ids=DAMAGES)
def test_damaged_batch_is_fetched_again_and_given_up_only_if_it_comes_alike(broken: bytes) -> None:
    first = fetch(BEFORE + broken + BEHIND)
    assert (first.offsets, first.next_offset) == ([0, 1, 2, 3], 4)
    fetch(broken + BEHIND, 4)  # a batch that ends nowhere was taken for one that was cut off
    again = fetch(broken + BEHIND, 4)
    assert (again.offsets, again.next_offset) == ([7], 8)
    assert list(again.unreadable) == [7]
    assert again.unreadable[7] == broken[: len(again.unreadable[7])]
    assert fetch(BEHIND, 8).offsets == [8, 9, 10, 11]


def test_batch_that_was_damaged_on_its_way_is_good_at_the_second_fetch() -> None:
    assert fetch(DAMAGES["a value"], 4).next_offset == 4
    read = fetch(BROKEN, 4)
    assert (read.offsets, read.unreadable) == ([4, 5, 6, 7], {})


def test_damaged_batch_that_does_not_know_its_end_is_given_up_offset_by_offset() -> None:
    broken = damaged(BROKEN, DELTA_AT, 0x7F)
    assert fetch(broken + BEHIND, 4).next_offset == 4
    assert [fetch(broken + BEHIND, at).offsets for at in (4, 5, 6, 7)] == [[4], [5], [6], [7]]


@dataclass
class Log:
    """A partition as a broker has it: it knows where its batches are, whatever has become of their bytes."""

    batches: list[bytes]

    def fetch(self, offset: int) -> bytes:
        return b"".join(self.batches[offset // COUNT :])

    def read(self) -> list[ConsumerRecord]:
        """Read it from start to end."""
        offset, records, fetches = 0, [], 0
        while offset < COUNT * len(self.batches):
            read = fetch(self.fetch(offset), offset)
            records += read.records
            offset, fetches = read.next_offset, fetches + 1
            assert fetches <= 2 * (1 + COUNT) * len(self.batches)
        return records


@st.composite
def damaged_logs(draw: st.DrawFn, *, by_producer: bool) -> tuple[Log, set[int]]:
    """Make a log, and change a byte in some of its batches, before or after their checksum was made."""
    codecs = draw(st.lists(st.sampled_from(list(raw_batches.CODECS)), min_size=1, max_size=4))
    batches = [
        batch([(b"k", b"text " * 20, [])] * COUNT, codec, base_offset=number * COUNT)
        for number, codec in enumerate(codecs)
    ]
    hurt = draw(st.sets(st.integers(0, len(batches) - 1)))
    for number in hurt:
        # Where a batch begins is the broker's own knowledge: it wrote the offset, and finds it by its index.
        at = draw(st.integers(HEADER_BYTES if by_producer else LENGTH_AT, len(batches[number]) - 1))
        batches[number] = damaged(batches[number], at, draw(st.integers(0, 255)))
        if by_producer:
            batches[number] = raw_batches.sealed(batches[number])
    return Log(batches), hurt


def judge(log: Log, hurt: set[int]) -> list[int]:
    """Check that what is not hurt is read in order and once; return the offsets of what is."""
    record_batches._suspects.clear()
    offsets = [record.offset for record in log.read()]
    assert offsets == sorted(set(offsets))
    good = [at for at in range(COUNT * len(log.batches)) if at // COUNT not in hurt]
    assert [at for at in offsets if at // COUNT not in hurt] == good
    return [at for at in offsets if at // COUNT in hurt]


@given(damaged_logs(by_producer=False))
def test_whatever_is_damaged_in_a_log_all_else_is_read(made: tuple[Log, set[int]]) -> None:
    log, hurt = made
    assert set(judge(log, hurt)) >= {number * COUNT + COUNT - 1 for number in hurt}


@given(damaged_logs(by_producer=True))
def test_whatever_a_producer_puts_in_a_batch_all_else_is_read(made: tuple[Log, set[int]]) -> None:
    log, hurt = made
    assert {at // COUNT for at in judge(log, hurt)} == hurt
