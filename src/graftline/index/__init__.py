"""The index: a SQLite database of a store's records, for questions that no single record answers.

    index = open_index(open_store(url), folders=(Path("outputs"),))
    release = index.release("mnist", 3)
    for record in index.ancestors(release.records.values()): ...

It is made from the records and can be made from them again at any time: it is never the truth. A question follows the
ledger to its end first; records that no ledger entry leads to (and what was removed by hand) are seen by
`graftline index`, which looks at every key. docs/decisions/index.md says why.
"""
