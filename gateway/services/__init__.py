"""Calls of the services: batched, cached and waited for."""
