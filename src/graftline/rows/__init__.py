"""The row index: which datasets hold a row, or a person's rows, and where; and what must not be ingested again.

    rows/<segment>/index.json       which datasets, how many entries, the sha256 of each shard (a DSSE envelope)
    rows/<segment>/<hex>-<sha>.bin  the entries whose digest starts with <hex> ('all' if there is one shard only)
    rows/tasks/<task>.json          the segments of a task: changed by compare-and-swap, entered when they are whole
    subjects/...                    the same, by the keyed hash of a person's id in place of the row's digest

A segment covers one dataset and is named by its digest, or several (16, 256), so that a task with hundreds of versions
is asked with a few reads. Entries are sorted by digest and of one width: see graftline.rows.shards. The index says
nothing that rows.parquet of the datasets does not say; docs/decisions/rows.md.
"""
