"""An order's statuses, and the reasons of cancellations and refusals, as they are on the wire."""

from typing import Literal

NEW = "NEW"
FINISHED = "FINISHED"
CANCELLED = "CANCELLED"
STATUSES = (NEW, FINISHED, CANCELLED)

#: The reason of a cancellation that was requested.
RequestedReason = Literal["user", "timeout", "refunded"]
#: The reason of a cancellation, or of the refusal of a payment.
Reason = Literal[
    "insufficient_funds", "no_account", "currency_mismatch", "account_frozen", "timeout", "user", "refunded"
]
