"""What can go wrong with the database, in the two kinds that matter: try again, or never."""

import psycopg2

#: SQLSTATE classes of data that no retry can mend: data exception, integrity constraint violation.
_POISON_CLASSES = ("22", "23")


class TransientFault(Exception):
    """The unit of work did not happen, or nobody knows: do it again. What it claimed makes that safe."""


class LockTimeout(TransientFault):
    """Somebody else held a row for longer than the lock timeout."""


class WatermarkGap(Exception):
    """Messages were passed over: the batch begins after the next offset whose effect is stored."""


def is_poison(error: BaseException) -> bool:
    """Tell whether the data itself is at fault. Everything else is worth another attempt."""
    if isinstance(error, AssertionError):
        return True
    return isinstance(error, psycopg2.Error) and (error.pgcode or "")[:2] in _POISON_CLASSES
