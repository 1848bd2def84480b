"""A step of private training: units drawn by chance, their gradients clipped and summed, noise added."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from graftline.privacy.accounting import Budget
from graftline.privacy.draws import Draws
from graftline.privacy.gradients import UnitGradients

_ROUND = 8
"""Passes have a multiple of so many rows: oneDNN compiles a bfloat16 kernel for each shape, and keeps it."""
Pass = Callable[[torch.Tensor, int], torch.Tensor]
"""Of (k,) rows and a seed: the mean loss of these rows, a scalar; what it draws may follow from the seed."""


class PrivateSteps:
    """DP-SGD with any optimizer: Abadi et al., 2016, algorithm 1. Each unit is in a step's batch by a draw of its own.

    What was drawn of the rows of one step is no matter of how many others were drawn: of images, warps follow from a
    seed that the draws keep.
    """

    def __init__(
        self,
        model: nn.Module,
        budget: Budget,
        draws: Draws,
        units: torch.Tensor,
        subject_rows: int,
        split: Callable[[torch.Tensor], list[torch.Tensor]],
    ) -> None:
        """Take over the gradients of what a model learns.

        Args:
            model: whose trained parameters the optimizer has.
            budget: how much noise there is, and how often a unit is drawn.
            draws: of batches and noise.
            units: (n,) the number of the unit of each row, from 0.
            subject_rows: rows of one unit in a step, at most.
            split: of (k,) rows the passes to compute them in.

        Raises:
            InputError: a trained layer is of a kind whose gradients nobody knows row by row.
        """
        self._gradients = UnitGradients(model)
        self._budget, self._draws, self._split, self._most = budget, draws, split, subject_rows
        self._units, self._count = units, 0
        order = units.argsort(stable=True)
        self._members, sizes = order, units.bincount(minlength=budget.units)
        self._sizes, self._first = sizes, sizes.cumsum(0) - sizes
        self.rows = torch.empty(0, dtype=torch.int64)
        """(k,) the rows of the last step."""

    def loss(self, step: int, mean_loss: Pass) -> torch.Tensor:
        """Return about the mean loss of a step's rows, to go backward from; 0 where no unit was drawn.

        What one row's loss says is no more protected than the row: the figure is for those who watch the run.
        """
        for layer in self._gradients.frozen:
            layer.eval()
        drawn = (
            (self._draws.uniform(step, self._budget.units, "batch") < self._budget.sampling_rate).nonzero().flatten()
        )
        self._count = len(drawn)
        self.rows, units = self._rows_of(drawn, step)
        total = torch.zeros((), device=self._gradients.parameters[0].device, requires_grad=True)
        if not len(self.rows):
            return total
        shares = 1 / units.bincount(minlength=self._count)  # a unit's gradient is the mean of its rows'
        for number, part in enumerate(self._passes(units)):
            idle = -len(part) % _ROUND  # rows of no unit, whose gradients are multiplied by 0
            places = torch.cat([part, part[:1].expand(idle)])
            of = torch.cat([units[part], self._count + torch.arange(idle)])
            scale = torch.cat([len(self.rows) * shares[units[part]], torch.zeros(idle)])
            self._count += idle
            with self._gradients.rows(of, scale):
                mean = mean_loss(self.rows[places], self._draws.seed + number)
            total = total + mean * (len(places) / len(self.rows))
        return total

    def _rows_of(self, drawn: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of units, and the place of each one's unit among them."""
        sizes = self._sizes[drawn]
        places = torch.repeat_interleave(torch.arange(len(drawn)), sizes)
        inside = torch.arange(len(places)) - (sizes.cumsum(0) - sizes)[places]
        rows = self._members[self._first[drawn][places] + inside]
        if int(sizes.max() if len(sizes) else 0) <= self._most:
            return rows, places
        # of more, those of the least of as many numbers drawn
        order = (places + self._draws.uniform(step, len(rows), "rows")).argsort()
        kept = order[inside < self._most]
        return rows[kept], places[kept]

    def _passes(self, units: torch.Tensor) -> list[torch.Tensor]:
        """Return the rows' places in passes; rows of one unit are in one."""
        whole = torch.arange(len(units))
        return self._split(self.rows) if len(units) == self._count else [whole]

    @torch.no_grad()
    def finish(self, step: int) -> None:
        """After the backward pass: set the parameters' `grad` to the noised mean over the expected number of units."""
        budget, parameters = self._budget, self._gradients.parameters
        self._gradients.clip(self._count, budget.clip)
        sizes = [parameter.numel() for parameter in parameters]
        noise = self._draws.normal(step, sum(sizes)) * (budget.noise_multiplier * budget.clip)
        for parameter, part in zip(parameters, noise.split(sizes), strict=True):
            assert parameter.grad is not None
            # float64 until the noise is in: what float32 cannot tell apart does not tell which row was there
            summed = parameter.grad.double() + part.view_as(parameter).to(parameter.device)
            parameter.grad = (summed / (budget.sampling_rate * budget.units)).float()
