"""Faust web views: health, readiness, metrics, projections."""
