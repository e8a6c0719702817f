"""Exponential backoff: pauses that double from a first one up to a bound."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """The pauses between attempts, in seconds. It does not wait by itself."""

    first: float
    most: float
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.first

    @property
    def next(self) -> float:
        """The pause after the next failure."""
        return self._next

    def failed(self) -> float:
        """Return the pause after a failure, and double the next."""
        pause, self._next = self._next, min(2 * self._next, self.most)
        return pause

    def succeeded(self) -> None:
        """Begin with the first pause again."""
        self._next = self.first
