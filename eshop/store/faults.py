"""What can go wrong with the database, in the two kinds that matter: try again, or never."""

import psycopg2

#: SQLSTATE classes of data that no retry can mend: data exception, integrity constraint violation.
_POISON_CLASSES = ("22", "23")


class TransientFault(Exception):
    """The unit of work did not happen, or nobody knows: do it again. What it claimed makes that safe."""


class LockTimeout(TransientFault):
    """Somebody else held a row for longer than the lock timeout."""


class BrokenAssertion(AssertionError):
    """An assertion of the domain or a handler: the message contradicts what is stored."""


class WatermarkGap(Exception):
    """Messages were passed over: what is stored ends before ``expected``; the batch goes on at ``found``."""

    def __init__(self, topic: str, partition: int, expected: int, found: int) -> None:
        super().__init__(f"{topic}/{partition}: offsets {expected} to {found - 1} were passed over")
        self.hole = (topic, partition, expected, found)


def is_poison(error: BaseException) -> bool:
    """Tell whether the data itself is at fault. Everything else is worth another attempt."""
    if isinstance(error, BrokenAssertion):
        return True
    return isinstance(error, psycopg2.Error) and (error.pgcode or "")[:2] in _POISON_CLASSES


def cause_of(error: BaseException) -> str:
    """Return what poison of this kind is grouped by."""
    return f"SQLSTATE {error.pgcode}" if isinstance(error, psycopg2.Error) else "broken assertion"
