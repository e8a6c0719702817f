"""`python -m tests.faults`: hurt a whole shop in every way there is, and have it audited in the end."""

import argparse
import json
import logging
import random
import sys
from pathlib import Path

from tests.faults.harness.report import markdown, table
from tests.faults.harness.run import console, run_blocking
from tests.faults.plan import (
    LONG_OUTAGE_SECONDS,
    OUTAGE_TIMES,
    Plan,
    everything,
    outages,
    short,
    short_outages,
    soak,
)


def main() -> int:
    """Return 0 where the run has proven what it is for."""
    arguments = _arguments()
    if arguments.list:
        for fault in _plan(arguments).faults if arguments.chapter == "outages" else everything():
            console.print(fault.name, markup=False)
        return 0
    # Its own consumers write down each attempt that an injected fault has spoilt; what matters is told here.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    plan = _plan(arguments)
    console.print(
        f"seed {plan.seed}: {plan.orders:,} orders and {plan.kills} kills in {plan.minutes:g} minutes,"
        f" {len(plan.faults)} faults; the same again with SEED={plan.seed}"
    )
    report = run_blocking(plan, arguments.logs)
    if report is None:
        console.print("stopped")
        return 130
    console.print(table(report))
    for name, fact in report.facts.items():
        console.print(f"{name}: {fact}", markup=False)
    for failure in report.failures:
        console.print("[red]FAILED[/] ", end="")
        console.print(failure, markup=False, soft_wrap=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(report))
    return 1 if report.failures else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.chapter == "outages":
        if arguments.short:
            return short_outages(arguments.seed)
        return outages(arguments.seed, arguments.times, arguments.seconds, arguments.only)
    if arguments.short:
        return short(arguments.seed)
    return soak(arguments.seed, arguments.minutes, arguments.orders, arguments.kills, arguments.only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "chapter",
        nargs="?",
        choices=("faults", "outages"),
        default="faults",
        help="faults: every fault once, and random kills; outages: the broker is away, for short or long",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long orders are placed (60)")
    parser.add_argument("--orders", type=int, default=200_000, help="how many at least (200,000)")
    parser.add_argument("--kills", type=int, default=100, help="how many SIGKILLs at least (100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="faults named so")
    parser.add_argument(
        "--times",
        type=int,
        default=OUTAGE_TIMES,
        help=f"outages: how many short ones ({OUTAGE_TIMES})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="*",
        default=LONG_OUTAGE_SECONDS,
        help="outages: the lengths of the long ones, each in every way to be away"
        f" ({' '.join(f'{seconds:g}' for seconds in LONG_OUTAGE_SECONDS)})",
    )
    parser.add_argument("--short", action="store_true", help="the part that the tests run")
    parser.add_argument("--list", action="store_true", help="name every fault, and end")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the processes' logs there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
