"""A worker whose relay tries again far sooner: `python -m tests.faults.hurried` in place of `-m faust`.

A short outage so has as many failed rounds of the relay as one of many minutes.
"""

import runpy

from eshop.relay import publisher, relay

PAUSES = (
    (relay, "BACKOFF_SECONDS", 0.01),
    (relay, "BACKOFF_SECONDS_MAX", 0.05),
    (publisher, "REQUEST_MS_MAX", 500),
)


def main() -> None:
    """Run Faust with shortened pauses; raise AttributeError if a pause has another name now."""
    for module, name, shortened in PAUSES:
        getattr(module, name)
        setattr(module, name, shortened)
    runpy.run_module("faust", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
