"""What alembic runs for each upgrade: the steps, on the connection and in the transaction that it is given.

Belongs here: handing that connection to alembic. Doesn't: deciding when to upgrade (`arrivals.schema`), or the steps
themselves (`arrivals.migrations.versions`).
"""

from __future__ import annotations

from alembic import context

from arrivals.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
