"""Where a private training's batches and noise come from: a secure generator, or the seed.

The bound holds against whoever does not know which units a step drew, nor its noise. So both come from one generator:
ChaCha20 under a key of the operating system's random numbers, a new one each step, which nobody keeps. What the seed
decides is a pure function of (seed, step), as everywhere in training, and no secret.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from graftline.learning.randomness import generator
from graftline.privacy.parameters import Noise


class Draws(ABC):
    """Random numbers of the steps of one training."""

    seed: int
    """For what else is drawn of a batch, such as warps of images."""

    @abstractmethod
    def uniform(self, step: int, count: int, purpose: str) -> torch.Tensor:
        """Return (count,) float64 numbers between 0 and 1, to draw the units of a step by, or their rows."""

    @abstractmethod
    def normal(self, step: int, count: int) -> torch.Tensor:
        """Return (count,) float64 numbers of a standard normal distribution, a step's noise."""


class Seeded(Draws):
    """As the seed decides."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, step: int, count: int, purpose: str) -> torch.Tensor:
        return torch.rand(count, generator=generator(self.seed, step, f"private {purpose}"), dtype=torch.float64)

    def normal(self, step: int, count: int) -> torch.Tensor:
        return torch.randn(count, generator=generator(self.seed, step, "private noise"), dtype=torch.float64)


class Secure(Draws):
    """As nobody can know."""

    def __init__(self) -> None:
        self.seed = int.from_bytes(os.urandom(8), "big") >> 1

    def uniform(self, step: int, count: int, purpose: str) -> torch.Tensor:
        # 53 bits in the middles of as many steps: never 0, of which there is no logarithm
        bits = np.frombuffer(_stream(8 * count), np.uint64) >> np.uint64(11)
        return torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-53)

    def normal(self, step: int, count: int) -> torch.Tensor:
        """As G. Box and M. Muller, Ann. Math. Stat. 29 (1958)."""
        length, angle = self.uniform(step, 2 * (-(-count // 2)), "noise").chunk(2)
        length, angle = (-2 * length.log()).sqrt(), 2 * math.pi * angle
        return torch.cat([length * angle.cos(), length * angle.sin()])[:count]


def _stream(count: int) -> bytes:
    """Return so many bytes of ChaCha20's key stream."""
    return Cipher(ChaCha20(os.urandom(32), os.urandom(16)), mode=None).encryptor().update(bytes(count))


def draws_for(noise: Noise, seed: int) -> Draws:
    """Return the source of a training's random numbers."""
    return Secure() if noise == "secure" else Seeded(seed)
