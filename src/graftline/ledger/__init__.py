"""The ledger: the append-only log of releases, promotions, rollbacks, erasures and keys. Aliases follow it.

Each entry is one object `ledger/<sequence>.json`, stored by put-if-absent, signed by its writer. It carries the sha256
of the bytes of the entry before it and the root of the Merkle tree (RFC 6962) over all before it. A changed, missing
or inserted entry, or one by a key that the ledger does not trust, breaks it there. That its end was cut off, or that
all of it was made anew, shows against a checkpoint that was kept elsewhere.
"""
