"""The audit: checks on a live system what the shop promises, with code of its own.

It shares nothing with handlers, domain, store, agents and relay: no mistake of theirs hides itself.
"""
