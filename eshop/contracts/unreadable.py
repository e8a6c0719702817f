"""What stands in the place of a message that the client library could not parse."""

from typing import Self


class Unreadable(bytes):
    """The raw bytes of a record, or of a whole batch of them, in the place of a record's value.

    ``error`` says why they could not be parsed.
    """

    error: str

    def __new__(cls, raw: bytes, error: str) -> Self:
        """Keep the bytes, with the reason."""
        made = super().__new__(cls, raw)
        made.error = error
        return made
