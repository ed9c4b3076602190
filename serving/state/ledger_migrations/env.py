"""What Alembic runs: the steps that are missing, on the connection and in the transaction of who
asks (`serving.state.ledger_database`)."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table="ledger_version"
)
context.run_migrations()
