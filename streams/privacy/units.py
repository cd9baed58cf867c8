"""Who stands behind each row.

The unit's fields as text, normalised as declared, one code per distinct unit.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streams.privacy.grid import integers

Int64 = NDArray[np.int64]
Units = list[str] | list[tuple[str, ...]]

_STEPS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
}


def units(columns: Sequence[pa.Array], normalise: Sequence[str]) -> tuple[Units, Int64]:
    """Distinct units, and the code of each row's. Text for one field, tuples of text for several.

    A null counts as empty text; its row must have been rejected before.
    """
    if len(columns) == 1:
        return _texts(columns[0], normalise)
    coded = [_texts(column, normalise) for column in columns]
    pairs, codes = np.unique(np.stack([code for _, code in coded], axis=1), axis=0, return_inverse=True)
    texts = [names for names, _ in coded]
    tuples = [tuple(str(names[i]) for names, i in zip(texts, row, strict=True)) for row in pairs.tolist()]
    return tuples, np.asarray(codes, np.int64).reshape(-1)


def _texts(column: pa.Array, normalise: Sequence[str]) -> tuple[list[str], Int64]:
    if column.null_count:
        column = column.fill_null("" if pa.types.is_string(column.type) else 0)
    coded = column.dictionary_encode()
    codes, values = integers(coded.indices), coded.dictionary
    if not pa.types.is_string(values.type):
        return [_text(value) for value in values.to_pylist()], codes
    names: list[str] = values.to_numpy(zero_copy_only=False).tolist()
    wanted = [step for step in normalise if step != "nfc" or not pc.all(pc.string_is_ascii(values)).as_py()]
    if not wanted:
        return names, codes
    normal = {name: name for name in names}
    for step in wanted:
        normal = {name: _STEPS[step](text) for name, text in normal.items()}
    place: dict[str, int] = {}
    merged = np.array([place.setdefault(normal[name], len(place)) for name in names], np.int64)
    return list(place), merged[codes] if len(merged) else codes


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def is_normal(column: pa.Array, normalise: Sequence[str]) -> NDArray[np.bool_] | None:
    """Which texts already are in normal form; None where all are. Nulls are."""
    if not pa.types.is_string(column.type):
        return None
    coded = column.fill_null("").dictionary_encode()
    names: list[str] = coded.dictionary.to_pylist()
    same = []
    for name in names:
        text = name
        for step in normalise:
            text = _STEPS[step](text)
        same.append(text == name)
    return None if all(same) else np.array(same)[integers(coded.indices)]
