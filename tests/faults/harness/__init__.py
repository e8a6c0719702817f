"""The run of the fault suite: shop, load, faults, judge, report."""
