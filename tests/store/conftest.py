import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from servers import moto_endpoint, moto_url, real_url, s3_url, store_url

__all__ = ["moto_endpoint", "moto_url", "real_url", "s3_url", "store_url"]
