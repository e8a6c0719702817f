"""A caller of the last version and a service of this one understand each other, and the other way round.

`golden/protos-VERSION.binpb` has the descriptors of a published version. It is made again after a release, or
after a change before the first release: `python -m tests.contract.test_proto_compatibility VERSION`.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from eshop.contracts import proto

GOLDEN = Path(__file__).parent / "golden"


def current() -> FileDescriptorSet:
    """Return the descriptors of all .proto files of these sources."""
    files = FileDescriptorSet()
    for module in pkgutil.iter_modules(proto.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"{proto.__name__}.{module.name}").DESCRIPTOR
            files.file.append(FileDescriptorProto.FromString(descriptor.serialized_pb))
    return files


def breaks(before: FileDescriptorSet, after: FileDescriptorSet) -> Iterator[str]:
    """Yield every change that a peer of the version before would not understand."""
    files = {file.name: file for file in after.file}
    for old in before.file:
        new = files.get(old.name)
        if new is None:
            yield f"{old.name} is gone"
            continue
        messages = {message.name: message for message in new.message_type}
        for message in old.message_type:
            if message.name in messages:
                yield from _broken_fields(message, messages[message.name])
            else:
                yield f"{old.name}: message {message.name} is gone"
        yield from _broken_methods(old, new)


def _broken_fields(old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in new.field}
    reserved = {number for range_ in new.reserved_range for number in range(range_.start, range_.end)}
    for field in old.field:
        now = fields.get(field.number)
        if now is None:
            if field.number not in reserved:
                yield f"{old.name}.{field.name} is gone, and its number {field.number} is not reserved"
        elif (now.type, now.type_name, now.label) != (field.type, field.type_name, field.label):
            yield f"{old.name}.{field.name} has another type"
        elif now.name != field.name:
            yield f"{old.name}.{field.name} is called {now.name}: code that is compiled again breaks"


def _broken_methods(old: FileDescriptorProto, new: FileDescriptorProto) -> Iterator[str]:
    methods = {(s.name, m.name): (m.input_type, m.output_type) for s in new.service for m in s.method}
    for service in old.service:
        for method in service.method:
            now = methods.get((service.name, method.name))
            if now != (method.input_type, method.output_type):
                yield f"{service.name}.{method.name} is gone, or takes or returns another message"


def golden(path: Path) -> FileDescriptorSet:
    """Return the descriptors of a published version."""
    return FileDescriptorSet.FromString(path.read_bytes())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("protos-*.binpb")), ids=lambda path: path.stem)
def test_every_published_version_is_understood(path: Path) -> None:
    assert list(breaks(golden(path), current())) == []


def test_there_is_a_published_version() -> None:
    assert list(GOLDEN.glob("protos-*.binpb"))


def test_break_is_seen() -> None:
    before, after = current(), current()
    orders = next(file for file in after.file if file.name.endswith("orders_v1.proto"))
    order = next(message for message in orders.message_type if message.name == "Order")
    status = next(field for field in order.field if field.name == "status")
    status.type = status.TYPE_INT64
    gone = next(field for field in order.field if field.name == "currency")
    order.field.remove(gone)
    del orders.service[0].method[0]
    found = list(breaks(before, after))
    assert "Order.status has another type" in found
    assert f"Order.currency is gone, and its number {gone.number} is not reserved" in found
    assert any(line.startswith("Orders.CreateOrders is gone") for line in found)


def test_field_that_is_gone_may_be_reserved() -> None:
    before, after = current(), current()
    orders = next(file for file in after.file if file.name.endswith("orders_v1.proto"))
    order = next(message for message in orders.message_type if message.name == "Order")
    gone = next(field for field in order.field if field.name == "currency")
    order.reserved_range.add(start=gone.number, end=gone.number + 1)
    order.field.remove(gone)
    assert list(breaks(before, after)) == []


if __name__ == "__main__":
    (GOLDEN / f"protos-{sys.argv[1]}.binpb").write_bytes(current().SerializeToString(deterministic=True))
