"""Pictures of answers: what stands above an image fits above it."""

from __future__ import annotations

import pytest

from graftline.problems.pictures import fit_caption


@pytest.mark.parametrize(
    ("caption", "shown", "size"),
    [
        ("3 → 5", "3 → 5", 10),
        ("Objects → Flags", "Objects →\nFlags", 7),
        ("People & Body → Smileys & Emotion", "People & Body →\nSmileys & Emo…", 7),
    ],
)
def test_long_names_of_classes_stand_in_two_lines_and_are_cut(caption: str, shown: str, size: int) -> None:
    assert fit_caption(caption) == (shown, size)
