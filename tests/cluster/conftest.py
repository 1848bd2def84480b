import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent.parent / folder) for folder in ("doctor", "pipelines", "store")]

from servers import moto_endpoint, moto_url

__all__ = ["moto_endpoint", "moto_url"]
