"""Faust tables: projections that can always be rebuilt, never the truth."""
