"""Programs that make the shipped tasks' raw data from its public source, with equal bytes on every run.

Each module is named after its task and has `write(out, source)`.
"""
