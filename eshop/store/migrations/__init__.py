"""Alembic migrations, a line of versions per service. A version that has shipped is never edited."""
