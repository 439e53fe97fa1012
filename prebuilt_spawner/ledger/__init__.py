"""The memory of the hub: which lock answers which request, and which environments exist, in an SQL database."""

from .sql_ledger import SqlLedger

__all__ = ["SqlLedger"]
