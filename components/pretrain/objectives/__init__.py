"""How `pretrain` learns without labels: one file an objective.

To add one: a file with a class or `build` function, its Params class in params.py (its `name` a literal) and in
ObjectiveParams there, and a line in build.py's function for objectives of its kind.
"""
