"""Points in time, one a row."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from graftline.values import identity
from graftline.values.scalar import Scalar, is_string


class Timestamp(Scalar):
    """Dates and times: Parquet's own, or text as ISO 8601 writes it, such as 2024-05-31 or 2024-05-31T23:59:00+02:00.

    Without a time it is midnight, without a zone UTC. Kept in microseconds; other spellings, such as 31/05/2024, which
    may be read in two ways, go to the quarantine.
    """

    type: Literal["timestamp"] = "timestamp"

    arrow: ClassVar[pa.DataType] = pa.timestamp("us", "UTC")
    orders: ClassVar[bool] = True

    def fits(self, kind: pa.DataType, *, is_text: bool) -> bool:
        return is_string(kind) or (not is_text and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)))

    def casts(self, kind: pa.DataType, *, is_text: bool) -> bool:
        return not is_string(kind)  # Arrow reads other spellings than these

    def parse(self, value: Any) -> datetime:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        elif not isinstance(value, datetime):
            assert isinstance(value, date)
            value = datetime(value.year, value.month, value.day)
        found: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return found.astimezone(UTC)

    def facts(self, typed: pa.Array) -> dict[str, Any]:
        return {}

    def cells(self, values: pa.Array) -> list[bytes]:
        return identity.cell_bytes(values.cast(pa.int64()))

    def times(self, values: pa.Array) -> np.ndarray:
        return super().times(values.cast(pa.int64()))

    def show_time(self, time: int) -> str:
        text = (datetime(1970, 1, 1) + timedelta(microseconds=int(time))).isoformat(sep=" ")
        return text.removesuffix(" 00:00:00")
