"""The first tables: messages by month, offsets by partition, events by hour, and what was retired.

Belongs here: this step, for both databases. Doesn't: the months of a PostgreSQL ledger, which are made as they begin
(`arrivals.months`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "offsets",
        sa.Column("source", sa.Integer(), primary_key=True),
        sa.Column("cluster", sa.String(64), nullable=False),
        sa.Column("topic", sa.String(256), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("topic_id", sa.String(64), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("leader_epoch", sa.Integer()),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.UniqueConstraint("cluster", "topic", "partition", "incarnation", name="offsets_by_partition"),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("source", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.String(1024), nullable=False),
        sa.Column("kind", sa.String(16)),
        *(sa.Column(name, sa.String(1024), nullable=False) for name in ("scope", "name", "src_rse", "dst_rse", "url")),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("adler32", sa.String(8)),
        *(sa.Column(name, sa.BigInteger()) for name in ("day_obs", "exposure", "detector")),
        sa.Column("sidecar", sa.Text()),
        *(sa.Column(name, _TIME) for name in ("created_at", "submitted_at", "started_at", "transferred_at")),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("waits_for", sa.String(1024)),
        sa.Column("retry_at", _TIME),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("excerpt", sa.Text()),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("messages_by_did", "messages", ["name", "scope"])
    op.create_index("messages_by_day_obs", "messages", ["day_obs", "state"])
    op.create_index("messages_by_exposure", "messages", ["exposure"])
    op.create_index("messages_by_time", "messages", ["received_at"], postgresql_using="brin")
    for name, columns, condition in (
        ("messages_unfinished", ["kind", "id"], "state IN ('received', 'waiting')"),
        ("messages_waiting", ["waits_for"], "state = 'waiting'"),
        ("messages_quarantined", ["id"], "state = 'quarantined'"),
    ):
        where = sa.text(condition)
        op.create_index(name, "messages", columns, postgresql_where=where, sqlite_where=where)
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("messages_by_offset", "messages", ["source", "offset"], unique=True)
    op.create_table(
        "retired",
        sa.Column("name", sa.String(1024), primary_key=True),
        sa.Column("scope", sa.String(1024), primary_key=True),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("adler32", sa.String(8)),
    )
    op.create_table(
        "events",
        sa.Column("hour", _TIME, primary_key=True),
        sa.Column("src_rse", sa.String(256), primary_key=True),
        sa.Column("dst_rse", sa.String(256), primary_key=True),
        sa.Column("event_type", sa.String(256), primary_key=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("count", "bytes", "duration_s", "timed_bytes")),
    )
