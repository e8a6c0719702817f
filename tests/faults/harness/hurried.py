"""A worker with short pauses of its relay: `python -m tests.faults.harness.hurried` in place of `-m faust`.

A short outage so has as many failed rounds of the relay as one of many minutes.
"""

import runpy
import sys

from eshop.relay import relay

PAUSES = {"BACKOFF_SECONDS": 0.01, "BACKOFF_SECONDS_MAX": 0.05, "REQUEST_MS_MAX": 500}


def main() -> None:
    """Run Faust with shortened pauses; raise LookupError if a pause has another name now."""
    room = relay.__package__
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{room}.")]
    for name, shortened in PAUSES.items():
        having = [module for module in modules if hasattr(module, name)]
        if not having:
            raise LookupError(f"nothing in {room} is named {name}")
        for module in having:  # some have it by import
            setattr(module, name, shortened)
    runpy.run_module("faust", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
