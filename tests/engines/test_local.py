"""What the local engine says of an error that comes to it through DVC."""

from __future__ import annotations

import pytest
from dvc.exceptions import DvcException

from graftline.engines.local import _repository
from graftline.errors import InputError


def test_our_own_error_is_told_and_not_that_of_the_library_behind_it() -> None:
    ours = InputError("raw.csv", "it is damaged")
    ours.__cause__ = OSError("Bad magic bytes")
    with pytest.raises(InputError) as told, _repository():
        raise DvcException("failed to reproduce") from ours
    assert told.value is ours
