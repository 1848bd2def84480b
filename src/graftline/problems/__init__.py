"""What `finetune` learns with labels: one file a head.

To add one: a file with a `Head` (see head.py), its Params class in params.py (its `name` a literal) and in HeadParams
there, and a line in build.py.
"""
