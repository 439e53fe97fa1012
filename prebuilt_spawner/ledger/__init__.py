"""The ledger: a small SQLAlchemy database that remembers locks and environments."""
