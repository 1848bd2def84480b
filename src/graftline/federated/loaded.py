"""What the server loads that workers are forked from: libraries, and what takes a while to set up.

Components are loaded by name beside it (workers.py).
"""

from __future__ import annotations

from graftline.values.suite import any_batch

any_batch()  # Great Expectations and its context: a second for each site, if each made its own
