"""Run by alembic for each migration: works on the connection that `prebuilt_spawner.ledger.migrations` hands over.

To write a new migration, copy the newest file in `versions` and give it the next number.
"""

from alembic import context

from prebuilt_spawner.ledger import migrations, schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=schema.metadata,
    version_table=migrations.VERSION_TABLE,
    # The transaction is the caller's, and SQLite's DDL is undone with it.
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
