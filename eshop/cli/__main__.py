"""The command's entry: for `eshop`, and for `python -m eshop.cli` without an installed script."""

import signal


def main() -> None:
    """Import the command and run it. Ctrl-C ends the import, which takes a while, without a message."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from eshop.cli.main import app  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
