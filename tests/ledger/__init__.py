"""The contract of every ledger, and the ledgers that are held to it."""
