"""Run by Alembic: migrate on the connection, and in the transaction, that `schema.migrate` opened."""

from alembic import context

from vault.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
