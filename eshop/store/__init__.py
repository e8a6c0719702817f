"""Postgres: unit of work, inbox, outbox, watermarks, repositories."""
