"""Alembic's entry: runs the versions on the connection of ``migrate``.

Each version is a transaction of its own, so that a version that has to give way undoes no other version.
``online`` tells how versions are written.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
