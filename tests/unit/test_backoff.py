"""Backoff doubles up to a bound, and begins again after a success."""

from eshop.backoff import Backoff


def test_pauses_double_up_to_the_bound_and_begin_again_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert [backoff.failed() for _ in range(2_000)][-1] == 3.0
    backoff.succeeded()
    assert backoff.next == 0.5
    assert backoff.failed() == 0.5
