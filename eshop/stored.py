"""Reading values that a worker of a newer version may have stored.

See docs/adr/0018-versions-and-times-that-differ.md.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def from_stored(kind: type[T], stored: Mapping[str, Any]) -> T:
    """Return the dataclass from its fields by name; unknown names are dropped.

    Raises TypeError if a field without a default is missing.
    """
    return kind(**{field.name: stored[field.name] for field in fields(kind) if field.name in stored})
