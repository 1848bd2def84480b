"""The S3 server's other service: keys."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

from servers import moto_endpoint, moto_url, real_url, store_url

__all__ = ["moto_endpoint", "moto_url", "real_url", "store_url"]
