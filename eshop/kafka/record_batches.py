"""Reading on past records that aiokafka can't parse. The uses of aiokafka's private names are here.

aiokafka (0.14) raises out of a whole fetch, and at the same place after every restart, if the name of a
header is not UTF-8, or a batch's checksum, compression or format is wrong. No later record is ever read. Here
such a record is found by its offset and handed on like any other, with ``Unreadable`` as its value.

See docs/adr/0017-what-the-client-library-can-not-parse.md.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py as decode_varint

from eshop.contracts.unreadable import Unreadable

#: By the number in a batch's attributes: its name, and both directions.
_CODECS: dict[int, tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    1: ("gzip", codec.gzip_encode, codec.gzip_decode),
    2: ("snappy", codec.snappy_encode, codec.snappy_decode),
    3: ("lz4", codec.lz4_encode, codec.lz4_decode),
    4: ("zstd", codec.zstd_encode, codec.zstd_decode),
}
CODECS = tuple(name for name, _, _ in _CODECS.values())
_SAMPLE = b"what is said twice is said twice " * 2

_HEADER = DefaultRecordBase.HEADER_STRUCT
#: Offset and length: the first fields of every format.
_LENGTH_END = 12
_MAGIC_AT = 16
_MAGIC_MAX = 2

#: Batches with a wrong checksum, by partition and content. See ``_is_stored_so``.
_suspects: deque[tuple[TopicPartition, int]] = deque(maxlen=100)

logger = logging.getLogger(__name__)


def tolerate_unreadable() -> None:
    """Have every consumer of this process read on past unparsable records. Safe to repeat.

    An unparsable record has an ``Unreadable`` value, its key if the key can be read, and no headers. An
    unparsable batch becomes one such record at its last offset: its other offsets are a hole in the log.
    Raises ImportError if a codec does not work: good messages would look bad.
    """
    if broken := broken_codecs():
        raise ImportError(f"no library for compression by {', '.join(broken)}: install eshop again")
    fetcher.MemoryRecords = _Batches
    fetcher.PartitionRecords = _Records


def broken_codecs() -> list[str]:
    """Return the names of the codecs that do not restore their input."""
    return [name for name, encode, decode in _CODECS.values() if not _is_good(encode, decode)]


def _is_good(encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes]) -> bool:
    try:
        return decode(encode(_SAMPLE)) == _SAMPLE
    except Exception:  # noqa: BLE001  whatever is wrong with a library
        return False


class _Batches:
    """A fetch's batches, one by one, in place of aiokafka's MemoryRecords.

    ``current`` is the bytes of the last batch, ``next_offset`` the offset after it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.current = b""
        self.next_offset = 0

    def size_in_bytes(self) -> int:
        """Return how much was fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Tell whether there is another batch. A last batch that is cut off does not count."""
        return self._at < len(self._data) and (self._at == 0 or self._end() is not None)

    def next_batch(self) -> Any:
        """Return the next batch. Raises aiokafka's errors, and continues after the batch then."""
        end = self._end()
        # If the length can't be true, the end is not known: only the header is kept.
        self.current = self._data[self._at : self._at + _HEADER.size if end is None else end]
        self._at = len(self._data) if end is None else end
        if end is None:
            raise CorruptRecordException("the batch's length can't be true")
        magic = self.current[_MAGIC_AT] if len(self.current) > _MAGIC_AT else 0
        if magic > _MAGIC_MAX or (magic == _MAGIC_MAX and len(self.current) < _HEADER.size):
            raise CorruptRecordException(f"the batch has the unknown format {magic}, or ends in its header")
        batch = MemoryRecords(self.current).next_batch()
        self.next_offset = batch.next_offset
        return batch

    def drop_rest(self) -> None:
        """Take no further batch of this fetch."""
        self._at = len(self._data)

    def _end(self) -> int | None:
        begin = self._at + _LENGTH_END
        length = int.from_bytes(self._data[begin - 4 : begin], signed=True)
        return begin + length if 0 <= length <= len(self._data) - begin else None


class _Records(PartitionRecords):  # type: ignore[misc]
    """aiokafka's records of one partition's fetch, continued after an error."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        while self._records.has_next():
            try:
                yield from super()._unpack_records()
            except MemoryError:
                raise  # that is this machine's fault
            except Exception as error:  # noqa: BLE001  whatever parsers and codecs raise
                for record in self._salvage(self._records.current, error):
                    if record.offset >= self.next_fetch_offset:  # else it was yielded, or is not wanted
                        self.next_fetch_offset = record.offset + 1
                        yield record

    def _consumer_record(self, tp: TopicPartition, record: Any) -> ConsumerRecord:
        if record.offset >= self._records.next_offset:  # nothing behind it would be read any more
            raise CorruptRecordException(f"the record says that it is at {record.offset}, behind its batch")
        return super()._consumer_record(tp, record)

    def _salvage(self, raw: bytes, error: Exception) -> Iterator[ConsumerRecord]:
        """Yield the records of a batch in which aiokafka has raised."""
        is_intact = _is_intact(raw)
        last = _last_offset(raw, self.next_fetch_offset, is_intact)
        if not is_intact:
            self._records.drop_rest()  # the broker knows where the next batch begins
            if not _is_stored_so(self._tp, raw):
                logger.warning("%s offset %d is fetched again: %r", self._tp, self.next_fetch_offset, error)
                return
            yield self._unreadable(last, raw, raw, error)
            return
        try:
            content = _content(raw)
        except Exception:  # noqa: BLE001  it is what aiokafka has raised
            yield self._unreadable(last, raw, raw, error)
            return
        yield from self._salvage_records(raw, content, last)
        self.next_fetch_offset = max(self.next_fetch_offset, last + 1)

    def _salvage_records(self, raw: bytes, content: bytes, last: int) -> Iterator[ConsumerRecord]:
        base, *_, count = _HEADER.unpack_from(raw)
        records = _split(content, count)
        offset = base - 1
        for number, record in enumerate(records, 1):
            try:
                parsed = _parse(raw, record)
                made = self._consumer_record(self._tp, parsed)
                offset = made.offset
            except Exception as error:  # noqa: BLE001  whatever the parser raises
                # Offsets are consecutive. In a compacted topic this may be the offset of a deleted record.
                offset = last if number == len(records) < count else offset + 1
                made = self._unreadable(offset, record, raw, error)
            yield made

    def _unreadable(self, last: int, what: bytes, batch: bytes, error: Exception) -> ConsumerRecord:
        """Return the record that stands for the offsets from the next to the last."""
        first, tp = self.next_fetch_offset, self._tp
        where = f"offsets {first} to {last}" if first < last else f"offset {last}"
        key = None if what is batch else _key_of(what)
        value = Unreadable(what, f"{where} can't be parsed: {error!r}")
        time_ms = max(0, _HEADER.unpack_from(batch)[8]) if len(batch) >= _HEADER.size else 0
        return ConsumerRecord(
            tp.topic, tp.partition, last, time_ms, 0, key, value, None, len(key or b""), len(what), ()
        )


def _is_intact(raw: bytes) -> bool:
    """Tell whether a batch is as its producer made it: then a second fetch has the same result."""
    batches = _Batches(raw)
    try:
        return bool(batches.next_batch().validate_crc())
    except Exception:  # noqa: BLE001  whatever the parser raises
        return False


def _is_stored_so(partition: TopicPartition, raw: bytes) -> bool:
    """Tell whether a batch with a wrong checksum came before with the same content: then the log has it.

    A batch that was damaged in transit is good at the next fetch: no message is given up.
    """
    suspect = partition, hash(raw)
    if suspect in _suspects:
        return True
    _suspects.append(suspect)
    return False


def _last_offset(raw: bytes, expected: int, is_intact: bool) -> int:
    """Return a batch's last offset, or ``expected`` if the batch's own fields can't be trusted."""
    if len(raw) < _HEADER.size:
        return expected
    base: int
    delta: int
    base, _, _, magic, _, _, delta, *_, count = _HEADER.unpack_from(raw)
    last = base + delta
    if is_intact:
        return last if magic == _MAGIC_MAX else base
    # As the broker took it from a producer: every offset has its record.
    is_plausible = base <= expected <= last and count == delta + 1
    return last if is_plausible else expected


def _content(raw: bytes) -> bytes:
    """Return a batch's records, uncompressed. Raises the codec's error, or LookupError."""
    if raw[_MAGIC_AT] != _MAGIC_MAX:
        raise LookupError("the old formats are not looked into")
    number = _HEADER.unpack_from(raw)[5] & DefaultRecordBase.CODEC_MASK
    if number == DefaultRecordBase.CODEC_NONE:
        return raw[_HEADER.size :]
    _, _, decode = _CODECS[number]
    return bytes(decode(raw[_HEADER.size :]))


def _split(content: bytes, count: int) -> list[bytes]:
    """Return the records' bytes. Records that can't be separated come as one, so there are fewer."""
    records: list[bytes] = []
    at = 0
    while len(records) < count:
        try:
            length, begin = decode_varint(content, at)
        except (IndexError, ValueError):
            length, begin = -1, at
        if not 0 <= length <= len(content) - begin:
            return [*records, content[at:]]
        records.append(content[at : begin + length])
        at = begin + length
    return records


def _parse(raw: bytes, record: bytes) -> Any:
    """Parse a record of a batch by itself: as an uncompressed batch of one record."""
    fields = list(_HEADER.unpack_from(raw))
    fields[5] &= ~DefaultRecordBase.CODEC_MASK
    fields[12] = 1
    return next(iter(DefaultRecordBatch(_HEADER.pack(*fields) + record)))


def _key_of(record: bytes) -> bytes | None:
    """Return a record's key; None if there is none, or none that can be read."""
    at = 0
    try:
        for _ in ("length", "attributes", "time", "offset"):
            _, at = decode_varint(record, at)
        length, at = decode_varint(record, at)
    except (IndexError, ValueError):
        return None
    return record[at : at + length] if 0 <= length <= len(record) - at else None
