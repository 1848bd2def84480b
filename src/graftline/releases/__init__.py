"""Releases: immutable published versions of a model, and the aliases that point at them.

releases/<task>/<n>/claim.json      who took version n, before anything is uploaded
releases/<task>/<n>/<file>          the files, and records/<name>.json
releases/<task>/<n>/manifest.json   last: without it the version does not exist
records/<sha256>.json               each record once more, found by its digest
aliases/<task>/<alias>.json         where an alias points; the ledger decides, this follows
"""
