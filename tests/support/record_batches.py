"""Record batches made by hand, unlike the shop's own, and a way to send them to the broker."""

import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

Headers = Sequence[tuple[str, bytes | None]]
Record = tuple[bytes | None, bytes | None, Headers]

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEADER_BYTES = DefaultRecordBase.HEADER_STRUCT.size
BAD_NAME = b"\xff\xfe"
#: Takes the place of ``BAD_NAME`` until a batch is made: as long, and nowhere else in it.
_STAND_IN = "\x01\x02"
_LENGTH_AT, _CRC_AT, _ATTRIBUTES_AT = 8, DefaultRecordBase.CRC_OFFSET, DefaultRecordBase.ATTRIBUTES_OFFSET


def batch(records: Sequence[Record], codec: str = "none", base_offset: int = 0) -> bytes:
    """Return a batch of these records."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 24)
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, 1_700_000_000_000, key, value, list(headers))
    return struct.pack(">q", base_offset) + bytes(builder.build())[8:]


def sealed(data: bytes) -> bytes:
    """Return a changed batch with the length and the checksum that belong to it."""
    made = bytearray(data)
    struct.pack_into(">i", made, _LENGTH_AT, len(made) - 12)
    struct.pack_into(">I", made, _CRC_AT, calc_crc32c(made[_ATTRIBUTES_AT:]))
    return bytes(made)


def with_codec(data: bytes, codec: int, content: bytes) -> bytes:
    """Return a batch whose content is said to be compressed like that."""
    attributes = struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0] & ~0x07 | codec
    head = bytearray(data[:HEADER_BYTES])
    struct.pack_into(">h", head, _ATTRIBUTES_AT, attributes)
    return sealed(bytes(head) + content)


def with_bad_header_name(records: Sequence[Record], bad: int, base_offset: int = 0) -> bytes:
    """Return a batch in which one record has a header whose name is not UTF-8."""
    key, value, headers = records[bad]
    marked = [*records[:bad], (key, value, [*headers, (_STAND_IN, b"x")]), *records[bad + 1 :]]
    return sealed(batch(marked, base_offset=base_offset).replace(_STAND_IN.encode(), BAD_NAME))


def with_bad_lz4(records: Sequence[Record], base_offset: int = 0) -> bytes:
    """Return a batch whose LZ4 content fails its own checksum, at which brokers don't look."""
    plain = batch(records, base_offset=base_offset)
    compressor = cramjam.lz4.Compressor(content_checksum=True, block_linked=False)
    compressor.compress(plain[HEADER_BYTES:])
    content = bytearray(bytes(compressor.finish()))
    content[-1] ^= 0xFF
    return with_codec(plain, CODECS["lz4"], bytes(content))


async def send(producer: AIOKafkaProducer, topic: str, partition: int, data: bytes) -> int:
    """Have the broker store the batch as it is; return the offset of its first record."""
    made: Any = producer.create_batch()
    count = struct.unpack_from(">i", data, HEADER_BYTES - 4)[0]
    made._builder = SimpleNamespace(build=lambda: bytearray(data), size=lambda: len(data))
    made._relative_offset = count
    made.close()
    sent = await (await producer.send_batch(made, topic, partition=partition))
    return int(sent.offset)


def damage_on_disk(logs: Path, topic: str, partition: int, good: bytes, bad: bytes) -> None:
    """Change bytes of a partition's log, as a failing disk does. The broker sends them on as they are."""
    (segment,) = (logs / f"{topic}-{partition}").glob("*.log")
    with segment.open("r+b") as log:
        at = log.read().index(good)
        log.seek(at)
        log.write(bad)
