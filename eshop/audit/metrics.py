"""The audit on a timer, for a monitor to ask: `eshop audit --every SECONDS --listen HOST:PORT`."""

import asyncio
import logging
import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, start_http_server

from eshop.audit.audit import Wanted, audit
from eshop.audit.findings import IDS, NotJudged, Report

logger = logging.getLogger(__name__)

_violations = Gauge("eshop_audit_violations", "Findings of the last audit", ["invariant"])
_success = Gauge(
    "eshop_audit_last_success_timestamp_seconds", "When an audit last ended with every invariant holding"
)
_judged = Gauge("eshop_audit_last_judged_timestamp_seconds", "When an audit last came to a verdict")
_duration = Gauge("eshop_audit_duration_seconds", "How long the last audit took")
_failures = Counter("eshop_audit_not_judged_total", "Audits that came to no verdict")


async def audit_every(
    wanted: Wanted, seconds: float, address: tuple[str, int], tell: Callable[[Report | NotJudged], None]
) -> None:
    """Audit repeatedly, at an interval between the begins; never return."""
    start_http_server(address[1], address[0])
    while True:
        began = time.monotonic()
        try:
            report = await audit(wanted)
        except NotJudged as reason:
            _failures.inc()
            tell(reason)
        else:
            _publish(report)
            tell(report)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))


def _publish(report: Report) -> None:
    for invariant in IDS:
        if invariant not in report.skipped:
            _violations.labels(invariant).set(report.findings.broken[invariant])
    _duration.set(report.seconds)
    _judged.set_to_current_time()
    if report.ok:
        _success.set_to_current_time()
