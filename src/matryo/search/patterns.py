"""Plans that people publish: whole kinds or blocks of layers wide, the others narrow.

In: a space. Out: points. They follow what is said of the published configurations of Gemma 3n: more
width for global layers, late blocks widened first, the readers in front skipped or not.
"""

from __future__ import annotations

from matryo.search.space import Point, Space


def patterns(space: Space) -> list[Point]:
    """Different points, smallest first; every one is inside the largest plan."""
    whole, small = space.point(space.largest), space.point(space.smallest)
    narrow = space.changed(whole, {layer: space.widths[layer][0] for layer in space.largest.layers})
    middle = space.changed(
        whole,
        {layer: space.widths[layer][len(space.widths[layer]) // 2] for layer in
         space.largest.layers},
    )  # fmt: skip
    found = [narrow, middle, small, whole]
    window, count = space.config.window, space.config.num_layers
    full = [layer for layer in space.largest.layers if not window[layer]]
    for start in (small, narrow):
        found.append(_widened(start, whole, full))
        for share in (0.25, 0.5, 0.75):
            late = [layer for layer in space.largest.layers if layer >= count * (1 - share)]
            found.append(_widened(start, whole, late))
            found.append(_widened(start, whole, {*full, *late}))
    skipped = [layer for layer, width in enumerate(small) if not width]
    for layer in skipped:
        found.append(_widened(small, whole, [layer]))
    # The same with the preset's layers left out.
    found.append(space.changed(whole, dict.fromkeys(skipped, 0)))
    found.append(space.changed(middle, dict.fromkeys(skipped, 0)))
    return sorted(dict.fromkeys(found), key=space.parameters)


def _widened(start: Point, whole: Point, layers: list[int] | set[int]) -> Point:
    """Layers of `start` as wide as in the whole model; those it skips stay skipped if `start` skips
    more than these.
    """
    return tuple(
        whole[layer] if layer in layers and (width or len(layers) == 1) else width
        for layer, width in enumerate(start)
    )
