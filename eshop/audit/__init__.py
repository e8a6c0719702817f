"""The audit: checks the shop's invariants on a live system, with code of its own.

It shares no code with handlers, domain, store, agents and relay, so that no error of theirs hides itself.
"""
