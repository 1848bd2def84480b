"""Graftline retrains pretrained models and proves where every model came from."""

import os

__version__ = "0.1.0"

# Else pydantic reads the metadata of all packages that are installed, at the first model of each process; and what
# parameters mean must not depend on a plugin among them.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
