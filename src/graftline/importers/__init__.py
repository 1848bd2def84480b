"""Programs that make the shipped tasks' raw data from its public source, with equal bytes on every run.

Each module has `write(out, source)` and is named after its task, but for debian.py, which makes `packages`:
packages.py fetches what the others read.
"""
