"""What `finetune` learns with labels: one folder a kind of learning problem.

To add one: a folder with a `Head` in head.py (see the head.py beside this file) and its Params class in parameters.py
(its `name` a literal, without torch), a line in HeadParams of parameters.py here, and one in registry.py.
"""
