"""Times in messages: with a zone, in UTC, and in a year with which every reader can compute.

See docs/adr/0018-versions-and-times-that-differ.md.
"""

from datetime import UTC, datetime

YEAR_MIN = 2000
YEAR_MAX = 2199


def in_utc(at: datetime) -> datetime:
    """Return the time in UTC; raise ValueError if it has no zone or its year is out of bounds."""
    if at.utcoffset() is None:
        raise ValueError("the time has no zone")
    try:
        utc = at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error
    if not YEAR_MIN <= utc.year <= YEAR_MAX:
        raise ValueError(f"the year {utc.year} is not from {YEAR_MIN} to {YEAR_MAX}")
    return utc
