import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from samples import glosses

__all__ = ["glosses"]
