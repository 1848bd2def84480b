"""Batch normalisation whose statistics are those of the whole batch, however many processes share it.

Ioffe and Szegedy, 2015, arXiv:1502.03167. torch's own SyncBatchNorm knows GPUs only; this one the CPU's gloo too, so
that a test can show that the processes learn what one process learns. On one process it is torch's layer, bit for bit.
"""

from __future__ import annotations

import torch
from torch import nn

from graftline.learning.distributed import world
from graftline.learning.sharing import summed


class _Shared(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or world().size == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        values = input.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        count = summed(torch.tensor(float(values[:, 0].numel()), device=values.device))
        mean = summed(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = summed(centred.square().sum(axes)) / count
        with torch.no_grad():
            self._remember(mean, variance * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics, as torch's layer does: towards the variance without bias."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class BatchNorm1d(_Shared, nn.BatchNorm1d):
    """Of (n, channels)."""


class BatchNorm2d(_Shared, nn.BatchNorm2d):
    """Of (n, channels, height, width)."""
