"""Faults of the database and of the data, in two kinds: transient faults and poison."""

import psycopg2

#: SQLSTATE classes of data that no retry can heal: data exception, integrity constraint violation.
_POISON_CLASSES = ("22", "23")


class TransientFault(Exception):
    """Rolled back, or the outcome is unknown: retry. The inbox claim makes the retry safe."""


class LockTimeout(TransientFault):
    """Somebody else held a row for longer than the lock timeout."""


class BrokenAssertion(AssertionError):
    """An assertion of the domain or a handler: the message contradicts the stored state."""


class WatermarkGap(Exception):
    """A gap: the stored effect ends before ``expected``, and the batch begins at ``found``."""

    def __init__(self, topic: str, partition: int, expected: int, found: int) -> None:
        super().__init__(f"{topic}/{partition}: offsets {expected} to {found - 1} were passed over")
        self.hole = (topic, partition, expected, found)


def is_poison(error: BaseException) -> bool:
    """Tell whether the data itself is at fault. Everything else is worth another attempt."""
    if isinstance(error, BrokenAssertion):
        return True
    return isinstance(error, psycopg2.Error) and (error.pgcode or "")[:2] in _POISON_CLASSES


def cause_of(error: BaseException) -> str:
    """Return the cause by which poison messages of this kind are grouped."""
    return f"SQLSTATE {error.pgcode}" if isinstance(error, psycopg2.Error) else "broken assertion"
