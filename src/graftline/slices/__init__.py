"""Whom a model fails: its score on groups of rows, corrected for looking at many, and differences between groups."""
