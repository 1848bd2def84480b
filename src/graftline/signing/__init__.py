"""Keys, signatures and the envelopes that carry them."""
