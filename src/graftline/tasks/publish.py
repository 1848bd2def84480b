"""The parameters of `publish`."""

from __future__ import annotations

from pydantic import Field

from graftline.tasks.parameters import Params


class PublishParams(Params):
    """Where a release is announced, and what its model card says that no measurement can."""

    alias: str = Field("champion", pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    """The alias to move to the new release: a lower-case letter, then letters, digits, `-`, `_`; at most
    63."""
    licence: str = Field("unspecified", min_length=1, max_length=200)
    """The model's licence: an SPDX identifier such as `Apache-2.0`, or `unspecified`; at most 200
    characters."""
    intended_use: str = Field("Not stated by its authors.", min_length=1, max_length=4000)
    """What the model is for and what it is not for, in Markdown; at most 4,000 characters."""
