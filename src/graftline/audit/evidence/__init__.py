"""One file for an outsider: records, proofs, an index in the order of the EU AI Act, and a verifier."""
