"""The replacement of a message that the client library could not parse."""

from typing import Self


class Unreadable(bytes):
    """The raw bytes of a record, or of a whole batch of records, in place of a record's value.

    ``error`` is the reason.
    """

    error: str

    def __new__(cls, raw: bytes, error: str) -> Self:
        """Keep the bytes, with the reason."""
        made = super().__new__(cls, raw)
        made.error = error
        return made
