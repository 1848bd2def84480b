"""The kinds of columns, by the word that a contract or a schema uses for them. A new kind is a line in what it fits."""

from __future__ import annotations

from graftline.values.audio import Audio, AudioColumn
from graftline.values.boxes import Boxes, BoxLabel
from graftline.values.category import ClassLabel, String
from graftline.values.column import Column, StoredFeature, StoredLabel
from graftline.values.image import Image, ImageColumn
from graftline.values.items import Items, ItemsColumn
from graftline.values.labels import Labels, LabelSets
from graftline.values.number import Float, Integer, NumberLabel
from graftline.values.numbers import Numbers, NumbersLabel
from graftline.values.ratings import RatingLabel, Ratings
from graftline.values.span import Span, SpanLabel
from graftline.values.tags import TagLabel, Tags
from graftline.values.text import Text, TextColumn
from graftline.values.timestamp import Timestamp
from graftline.values.transcript import Transcript, TranscriptLabel
from graftline.values.words import Tokens, TokensColumn

KINDS: tuple[type[Column], ...] = (
    Image, Integer, Float, Numbers, String, Timestamp, Text, Tokens, Tags, Labels, Span, Items, Audio, Boxes,
    Transcript, Ratings,
)  # fmt: skip
"""In a contract."""
FEATURES: tuple[type[StoredFeature], ...] = (ImageColumn, TextColumn, TokensColumn, ItemsColumn, AudioColumn)
"""In a dataset: what a model sees."""
LABELS: tuple[type[StoredLabel], ...] = (
    ClassLabel,
    NumberLabel,
    NumbersLabel,
    TagLabel,
    LabelSets,
    SpanLabel,
    BoxLabel,
    TranscriptLabel,
    RatingLabel,
)
"""In a dataset: what a model learns to tell."""

COLUMN_TYPES: dict[str, type[Column]] = {str(kind.model_fields["type"].default): kind for kind in KINDS}
FEATURE_TYPES = {kind.type: kind for kind in FEATURES}
LABEL_TYPES = {kind.type: kind for kind in LABELS}
