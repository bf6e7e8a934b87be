"""Pages of cached keys and values, and attention over them, in plain numpy.

A page holds PAGE tokens of one owner layer and one sequence: for each kv head the keys transposed
(Dh, PAGE), then the values (PAGE, Dh), as f32, bf16 or int8; int8 pages end with the float32 scales
(K, 2, PAGE) of keys and values. Position t lies in page (t // PAGE) mod number of pages, slot t mod
PAGE. Source: docs/architecture.md section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

PAGE = 64
KV_KINDS = ("f32", "bf16", "int8")
_ELEMENTS: dict[str, npt.DTypeLike] = {"f32": np.float32, "bf16": np.uint16, "int8": np.int8}


def page_bytes(kind: str, num_kv_heads: int, head_dim: int) -> int:
    """Bytes of one page."""
    elements = 2 * num_kv_heads * head_dim * PAGE * np.dtype(_ELEMENTS[kind]).itemsize
    return elements + (2 * num_kv_heads * PAGE * 4 if kind == "int8" else 0)


@dataclass(frozen=True)
class PageView:
    """One page seen as arrays, as they are stored.

    keys (K, Dh, PAGE) · values (K, PAGE, Dh) · scales (K, 2, PAGE), of int8 only
    """

    kind: str
    keys: list[npt.NDArray[np.generic]]
    values: list[npt.NDArray[np.generic]]
    scales: F32 | None


def page_view(page: U8, kind: str, num_kv_heads: int, head_dim: int) -> PageView:
    """Views into `page`; writing to them writes to the page."""
    size = head_dim * PAGE * np.dtype(_ELEMENTS[kind]).itemsize
    end = 2 * num_kv_heads * size
    parts = [page[start : start + size].view(_ELEMENTS[kind]) for start in range(0, end, size)]
    return PageView(
        kind,
        [part.reshape(head_dim, PAGE) for part in parts[0::2]],
        [part.reshape(PAGE, head_dim) for part in parts[1::2]],
        page[end:].view(np.float32).reshape(num_kv_heads, 2, PAGE) if kind == "int8" else None,
    )


def convert_page(source: PageView, target: PageView) -> None:
    """Writes the keys and values of one page as elements of another kind."""
    for head in range(len(source.keys)):
        for which, (taken, given) in enumerate(
            ((source.keys[head], target.keys[head]), (source.values[head].T, target.values[head].T))
        ):
            vectors = _loaded(taken, _scale(source, head, which)).astype(np.float32)  # (Dh, PAGE)
            if target.scales is None:
                given[:] = _stored(np.ascontiguousarray(vectors), target.kind)[0]
                continue
            absmax = np.abs(vectors).max(axis=0)
            kept = absmax >= 2.0**-100
            factors = np.divide(np.float32(127.0), absmax, out=np.zeros_like(absmax), where=kept)
            given[:] = np.rint(vectors * factors).astype(np.int8)
            target.scales[head, which] = np.where(kept, absmax / np.float32(127.0), 0.0)


@dataclass
class PageTable:
    """The pages of one owner layer, of one sequence (`set`) or several (`stack`).

    window 0 = all positions visible.
    """

    kind: str
    num_kv_heads: int
    head_dim: int
    window: int
    sequences: list[list[U8]] = field(default_factory=lambda: [[]])

    def set(self, pages: Sequence[U8]) -> None:
        """Replaces the pages of the only sequence."""
        self.sequences = [list(pages)]

    @staticmethod
    def stack(tables: Sequence[PageTable]) -> PageTable:
        """Tables of one sequence each -> one table of many."""
        first = tables[0]
        stacked = PageTable(first.kind, first.num_kv_heads, first.head_dim, first.window)
        stacked.sequences = [table.sequences[0] for table in tables]
        return stacked

    def view(self, sequence: int, page: int) -> PageView:
        """Page number `page`, counted from position 0, of a sequence."""
        pages = self.sequences[sequence]
        return page_view(pages[page % len(pages)], self.kind, self.num_kv_heads, self.head_dim)


def write_rows(table: PageTable, sequences: I32, positions: I32, keys: F32, values: F32) -> None:
    """Stores keys and values (T, K, Dh) of T tokens."""
    for row, (sequence, position) in enumerate(
        zip(sequences.tolist(), positions.tolist(), strict=True)
    ):
        view = table.view(sequence, position // PAGE)
        slot = position % PAGE
        for head in range(table.num_kv_heads):
            stored_key, key_scale = _stored(keys[row, head], table.kind)
            stored_value, value_scale = _stored(values[row, head], table.kind)
            view.keys[head][:, slot] = stored_key
            view.values[head][slot] = stored_value
            if view.scales is not None:
                view.scales[head, :, slot] = key_scale, value_scale


def attend(queries: F32, table: PageTable, sequences: I32, positions: I32, out: F32) -> None:
    """Causal attention of queries (T, H, Dh), normed and rotated, over the pages; out alike."""
    heads_per_kv = queries.shape[1] // table.num_kv_heads
    for row, (sequence, position) in enumerate(
        zip(sequences.tolist(), positions.tolist(), strict=True)
    ):
        first = max(0, position - table.window + 1) if table.window else 0
        keys, values = _read(table, sequence, first, position + 1)
        for head in range(queries.shape[1]):
            kv = head // heads_per_kv
            scores = keys[kv] @ queries[row, head].astype(np.float64)
            weights = np.exp(scores - scores.max())
            out[row, head] = (weights / weights.sum()) @ values[kv]


def _read(
    table: PageTable, sequence: int, first: int, end: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Keys and values (K, n, Dh) of positions [first, end)."""
    pages = range(first // PAGE, (end - 1) // PAGE + 1)
    views = [table.view(sequence, page) for page in pages]
    taken = slice(first - pages[0] * PAGE, end - pages[0] * PAGE)
    heads = range(table.num_kv_heads)
    keys = [
        np.concatenate([_loaded(v.keys[h], _scale(v, h, 0)).T for v in views])[taken] for h in heads
    ]
    values = [
        np.concatenate([_loaded(v.values[h].T, _scale(v, h, 1)).T for v in views])[taken]
        for h in heads
    ]
    return np.stack(keys), np.stack(values)


def _scale(view: PageView, head: int, which: int) -> F32 | None:
    return None if view.scales is None else view.scales[head, which]


def _stored(x: F32, kind: str) -> tuple[npt.NDArray[np.generic], float]:
    """A vector (Dh) in the elements of a page, and its scale (1 unless int8)."""
    if kind == "f32":
        return x, 1.0
    if kind == "bf16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), 1.0
    absmax = np.abs(x).max()
    if absmax < 2.0**-100:
        return np.zeros(x.shape, np.int8), 0.0
    steps = np.rint(x * (np.float32(127.0) / absmax)).astype(np.int8)
    return steps, float(absmax / np.float32(127.0))


def _loaded(stored: npt.NDArray[np.generic], scale: F32 | None) -> npt.NDArray[np.float64]:
    """Elements (Dh, PAGE) of a page as float64; `scale` (PAGE) applies to tokens."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64) * (1.0 if scale is None else scale)
