"""Forget a person or a row: the plan, what is removed where, the receipt."""
