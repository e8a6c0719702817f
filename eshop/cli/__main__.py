"""Run the command: as `eshop`, and as `python -m eshop.cli` where no script is installed."""

import signal


def main() -> None:
    """Import the command and run it. Ctrl-C ends the import, which takes a while, without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from eshop.cli.main import app  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
