import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

from servers import moto_endpoint, moto_url  # noqa: E402
from trainjobs import backend, url  # noqa: E402

__all__ = ["backend", "moto_endpoint", "moto_url", "url"]
