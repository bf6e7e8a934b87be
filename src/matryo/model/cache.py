"""Keys and values of one sequence, in pages.

Every owner layer of the plan has its own pages of PAGE tokens (layout: docs/architecture.md section
4). Full layers grow; sliding layers are rings: position t lies in page (t // PAGE) mod ring length.
The engine reserves room before a forward pass and commits after it: no layer ever moves the
position. Forks share pages until one of them writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.errors import CapacityError, InputError
from matryo.kernels.reference_pages import (
    KV_KINDS,
    PAGE,
    convert_page,
    page_bytes,
    page_view,
)

U8 = npt.NDArray[np.uint8]
_ALIGNMENT = 64  # bytes; a cache line and a vector register of every instruction set


class PageTable(Protocol):
    """What a kernel takes for the pages of a layer: native, or the numpy twin."""

    def set(self, pages: Sequence[U8], /) -> None: ...


MakeTable = Callable[[str, int, int, int], Any]  # kind, kv heads, head dim, window


@dataclass(slots=True, eq=False)
class _LayerPages:
    """Pages of one owner layer. `owned[i]` is False while page i may be shared with a fork."""

    layer: int
    max_pages: int
    window: int
    table: Any
    pages: list[U8] = field(default_factory=list)
    owned: list[bool] = field(default_factory=list)


class KVCache:
    """K/V of `length` tokens of one sequence for the owner layers `owners` of a plan.

    kind: how elements are stored, f32, bf16 or int8. chunk: the most tokens reserved at once, which
    sizes the rings.
    make_table: the page table class of the kernels in use. Not safe for use from two threads at
    once.
    """

    def __init__(
        self,
        config: TextConfig,
        owners: tuple[int, ...],
        *,
        kind: str,
        chunk: int,
        make_table: MakeTable,
    ) -> None:
        if kind not in KV_KINDS:
            raise InputError(f"K/V kind is {kind!r}; allowed: {', '.join(KV_KINDS)}")
        if chunk < 1:
            raise InputError(f"chunk is {chunk}; expected at least 1 token")
        self.config, self.owners, self.kind, self.chunk = config, owners, kind, chunk
        self.length = 0
        self._make_table = make_table
        self._page_bytes = page_bytes(kind, config.num_kv_heads, config.head_dim)
        self._ready = 0  # positions [length, _ready) have pages of our own
        self._written = (
            0  # one past the highest position that may have been written since the cache was empty
        )
        self._oldest = 0  # sliding layers have lost everything below
        self._layers = [self._empty_layer(layer) for layer in owners]
        self.tables: tuple[Any, ...] = tuple(pages.table for pages in self._layers)

    @property
    def capacity(self) -> int:
        """The most tokens the sequence may have."""
        return self.config.context_length

    @property
    def reserved(self) -> int:
        """One past the last position that may be written now."""
        return self._ready

    @property
    def nbytes(self) -> int:
        """Bytes of all pages, shared ones included."""
        return sum(len(pages.pages) for pages in self._layers) * self._page_bytes

    def reserve(self, num_tokens: int) -> None:
        """Makes room for `num_tokens` after `length`; undone by nothing, repeated at will.

        Raises CapacityError beyond the context, InputError above `chunk`.
        """
        end = self.length + num_tokens
        if end <= self._ready:
            return
        if end > self.capacity:
            raise CapacityError(
                f"{end} tokens exceed the context of {self.capacity}; shorten the prompt or start "
                "a new session"
            )
        if num_tokens > self.chunk:
            raise InputError(
                f"{num_tokens} tokens at once exceed the cache's chunk of {self.chunk}"
            )
        for pages in self._layers:
            self._make_writable(pages, end)
        self._ready = -(-end // PAGE) * PAGE
        self._note_written(self._ready)

    def commit(self, num_tokens: int) -> None:
        """Counts `num_tokens` as written, once a forward pass has stored their K/V. Raises
        InputError if not reserved.
        """
        if not 0 <= num_tokens <= self._ready - self.length:
            raise InputError(
                f"cannot commit {num_tokens} tokens: room for {self._ready - self.length} is "
                "reserved"
            )
        self.length += num_tokens
        self._note_written(self.length)

    def can_trim(self, num_tokens: int) -> bool:
        """True if the last `num_tokens` can be dropped: sliding layers must still hold the window
        before them.
        """
        length = self.length - num_tokens
        return 0 <= num_tokens and (
            length == 0 or (length > 0 and self._first_needed(length) >= self._oldest)
        )

    def trim(self, num_tokens: int) -> None:
        """Drops the last `num_tokens`. Raises InputError if `can_trim` says no: then prefill
        again.
        """
        if not self.can_trim(num_tokens):
            raise InputError(
                f"cannot drop {num_tokens} of {self.length} tokens: sliding layers have "
                "overwritten what is before "
                "them. Start again from the token ids"
            )
        self.length -= num_tokens
        self._ready = 0
        if self.length == 0:
            self._written = self._oldest = 0
        for pages in self._layers:
            if not pages.window or self.length == 0:
                keep = -(-self.length // PAGE)
                del pages.pages[keep:], pages.owned[keep:]
                pages.table.set(pages.pages)

    def fork(self) -> Self:
        """An independent copy. Pages are shared until either side writes to them."""
        copy = type(self)(
            self.config, self.owners, kind=self.kind, chunk=self.chunk, make_table=self._make_table
        )
        copy.length, copy._written, copy._oldest = self.length, self._written, self._oldest
        for mine, theirs in zip(self._layers, copy._layers, strict=True):
            mine.owned = [False] * len(mine.pages)
            theirs.pages, theirs.owned = list(mine.pages), list(mine.owned)
            theirs.table.set(theirs.pages)
        self._ready = 0
        return copy

    def convert(self, kind: str) -> None:
        """Store what is cached as another kind of elements, page by page; forks keep theirs.

        Not what the model would have written as that kind: values are rounded once more.
        """
        if kind not in KV_KINDS:
            raise InputError(f"K/V kind is {kind!r}; allowed: {', '.join(KV_KINDS)}")
        if kind == self.kind:
            return
        heads, head_dim = self.config.num_kv_heads, self.config.head_dim
        page_size = page_bytes(kind, heads, head_dim)
        for pages in self._layers:
            for index, page in enumerate(pages.pages):
                converted = _new_page(page_size)
                convert_page(
                    page_view(page, self.kind, heads, head_dim),
                    page_view(converted, kind, heads, head_dim),
                )
                pages.pages[index] = converted
            pages.owned = [True] * len(pages.pages)
            pages.table = self._make_table(kind, heads, head_dim, pages.window)
            pages.table.set(pages.pages)
        self.kind, self._page_bytes = kind, page_size
        self.tables = tuple(pages.table for pages in self._layers)

    def export(self) -> dict[str, U8]:
        """The pages still held: `kv.{layer}` -> (pages, page bytes) uint8, oldest first.

        Of sliding layers that is more than the window, so that a restored cache can be trimmed as
        far as this one. Slots beyond `length` are zeroed: they may hold tokens that were dropped.
        """
        return {f"kv.{pages.layer}": self._exported(pages) for pages in self._layers}

    def import_(self, length: int, arrays: Mapping[str, U8]) -> None:
        """Restores what `export` gave for `length` tokens into this (empty) cache.

        Of sliding layers the last pages that fit are taken: the rings of the other cache may have
        been longer. Raises InputError naming the array that is missing, unknown or misshapen; the
        cache is unchanged then.
        """
        if self.length or not 0 <= length <= self.capacity:
            raise InputError(
                f"cannot restore {length} tokens into a cache of {self.length} of {self.capacity}"
            )
        names = {f"kv.{pages.layer}" for pages in self._layers}
        if set(arrays) != names:
            raise InputError(
                f"saved K/V are of other layers: {sorted(set(arrays) ^ names)[:3]} do not fit the "
                "plan"
            )
        for pages in self._layers:
            self._check_saved(pages, length, arrays[f"kv.{pages.layer}"])
        for pages in self._layers:
            self._restore(pages, length, arrays[f"kv.{pages.layer}"])
        self.length, num_pages = length, -(-length // PAGE)
        self._written = num_pages * PAGE
        held = [
            min(len(arrays[f"kv.{pages.layer}"]), pages.max_pages)
            for pages in self._layers
            if pages.window
        ]
        self._oldest = max((num_pages - count) * PAGE for count in held) if held else 0

    def _empty_layer(self, layer: int) -> _LayerPages:
        config, window = self.config, self.config.window[layer]
        tokens = min(window + self.chunk, self.capacity) if window else self.capacity
        table = self._make_table(self.kind, config.num_kv_heads, config.head_dim, window)
        return _LayerPages(layer, -(-tokens // PAGE) + (1 if window else 0), window, table)

    def _make_writable(self, pages: _LayerPages, end: int) -> None:
        """Own pages for the positions [length, end): grown, or copied if a fork may read them
        too.
        """
        last = (end - 1) // PAGE
        changed = False
        while len(pages.pages) <= last and len(pages.pages) < pages.max_pages:
            pages.pages.append(_new_page(self._page_bytes))
            pages.owned.append(True)
            changed = True
        for number in range(self.length // PAGE, last + 1):
            index = number % len(pages.pages)
            if not pages.owned[index]:
                pages.pages[index] = _copied(pages.pages[index])
                pages.owned[index] = changed = True
        if changed:
            pages.table.set(pages.pages)

    def _note_written(self, end: int) -> None:
        """A ring of n pages keeps the last n pages' worth of positions of what was ever written."""
        self._written = max(self._written, end)
        for pages in self._layers:
            if pages.window:
                self._oldest = max(self._oldest, self._written - pages.max_pages * PAGE)

    def _first_needed(self, length: int) -> int:
        """The lowest position a sliding layer needs to continue after `length` tokens."""
        windows = [pages.window for pages in self._layers if pages.window]
        return max(0, length - max(windows) + 1) if windows else 0

    def _exported(self, pages: _LayerPages) -> U8:
        # `_oldest` begins a page: room is reserved, and so lost to a ring, by whole pages.
        first = self._oldest // PAGE if pages.window else 0
        numbers = range(first, -(-self.length // PAGE))
        out = np.zeros((len(numbers), self._page_bytes), np.uint8)
        for row, number in zip(out, numbers, strict=True):
            row[:] = pages.pages[number % len(pages.pages)]
        if self.length % PAGE:
            self._clear_slots(out[-1], self.length % PAGE)
        return out

    def _clear_slots(self, page: U8, first: int) -> None:
        view = page_view(page, self.kind, self.config.num_kv_heads, self.config.head_dim)
        for keys, values in zip(view.keys, view.values, strict=True):
            keys[:, first:] = 0
            values[first:] = 0
        if view.scales is not None:
            view.scales[:, :, first:] = 0

    def _check_saved(self, pages: _LayerPages, length: int, array: U8) -> None:
        num_pages = -(-length // PAGE)
        first_seen = max(0, length - pages.window + 1) if pages.window else 0
        fewest = num_pages - first_seen // PAGE
        if (
            array.dtype != np.uint8
            or array.ndim != 2
            or array.shape[1] != self._page_bytes
            or not fewest <= len(array) <= num_pages
        ):
            raise InputError(
                f"saved array kv.{pages.layer}: expected uint8 ({fewest} to {num_pages}, "
                f"{self._page_bytes}), got {array.dtype} {array.shape}"
            )

    def _restore(self, pages: _LayerPages, length: int, array: U8) -> None:
        num_pages = -(-length // PAGE)
        count = min(num_pages, pages.max_pages)
        array = array[-count:]
        numbers = range(num_pages - len(array), num_pages)
        pages.pages = [_new_page(self._page_bytes) for _ in range(count)]
        pages.owned = [True] * count
        for row, number in zip(array, numbers, strict=True):
            pages.pages[number % count][:] = row
        pages.table.set(pages.pages)


def _new_page(num_bytes: int) -> U8:
    """A zeroed page, aligned for vector loads."""
    raw = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    return raw[offset : offset + num_bytes]


def _copied(page: U8) -> U8:
    copy = _new_page(len(page))
    copy[:] = page
    return copy
