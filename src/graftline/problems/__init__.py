"""What `finetune` learns with labels: one folder a head.

To add one: a folder with a `Head` (see head.py) whose model gives `Answers` (answers.py), its parameters in
parameters.py (`name` a literal, `scores` what is measured, the primary one first) and in HeadParams there, and a line
in registry.py. Intervals, lift, gate, report and pages come from the scores; none of them is to be touched.
"""
