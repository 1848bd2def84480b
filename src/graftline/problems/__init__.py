"""What `finetune` learns with labels: one folder a kind of learning problem.

To add one: a folder with a `Head` in head.py (see the head.py beside this file), whose model gives `Answers`
(answers.py), and its Params class in parameters.py (its `name` a literal, `scores` what is measured, the primary one
first; without torch), a line in HeadParams of parameters.py here, and one in registry.py. Intervals, lift, gate, report
and pages come from the scores; none of them is to be touched.
"""
