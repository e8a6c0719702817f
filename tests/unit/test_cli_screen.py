"""The launcher's screen shows what a child logs, except for the requests that succeeded."""

from pathlib import Path

from eshop.cli.console import console
from eshop.cli.screen import Screen

STAMP = "2026-01-01 12:00:00,000"
HIDDEN = (
    f"{STAMP} INFO gateway.access POST /api/v1/orders 202 3.1ms 4bf92f3577b34da6a3ce929d0e0e4736",
    f"{STAMP} INFO gateway.access GET /api/v1/orders 304 0.9ms 4bf92f3577b34da6a3ce929d0e0e4736",
)
SHOWN = (
    f"{STAMP} INFO gateway.access GET /api/v1/orders 404 0.9ms 4bf92f3577b34da6a3ce929d0e0e4736",
    f"{STAMP} INFO gateway.access POST /api/v1/orders/200 503 2.0ms 4bf92f3577b34da6a3ce929d0e0e4736",
    f"{STAMP} INFO gateway.access GET / 499 2.0ms 4bf92f3577b34da6a3ce929d0e0e4736",
    f"{STAMP} WARNING gateway.feed slow",
    "a line without a stamp",
)


def test_requests_that_succeeded_are_not_shown(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.touch()
    screen = Screen(tmp_path / "launcher.log")
    screen.follow([log])
    log.write_text("".join(f"{line}\n" for line in (*HIDDEN, *SHOWN)))
    with console.capture() as output:
        screen.show_new_lines()
    shown = output.get()
    assert [line for line in SHOWN if line not in shown] == []
    assert [line for line in HIDDEN if line in shown] == []
