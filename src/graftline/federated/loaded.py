"""What the server loads that workers are forked from: libraries, and what takes a while to set up.

Components are loaded by name beside it (workers.py).
"""

from __future__ import annotations

import pyarrow.dataset
import rfc8785
import safetensors.numpy
import safetensors.torch
import torch._dynamo

from graftline.values.suite import any_batch

LATE = (pyarrow.dataset, rfc8785, safetensors.numpy, safetensors.torch, torch._dynamo)
"""What is else loaded in the midst of the work, such as by the first optimizer: 1.5 s of each process."""

any_batch()  # Great Expectations and its context: a second for each site, if each made its own
