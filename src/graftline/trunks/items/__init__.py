"""Trunks of histories: transformers over the items of a user, learned by hiding some of them."""
