"""Signatures of the compiled module.

Shapes and dtypes: docs/architecture.md; the numpy twins: kernels/reference.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def threads() -> int: ...
def set_threads(threads: int) -> None: ...
def read_bandwidth(bytes: int, threads: int, repeats: int) -> list[float]: ...

class Matrix:
    def __init__(
        self, kind: str, layout: str, rows: int, cols: int, data: npt.NDArray[Any]
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def data(self) -> npt.NDArray[Any]: ...
    @property
    def nbytes(self) -> int: ...

class Segment:
    def __init__(self, gate: Matrix, up: Matrix, down: Matrix) -> None: ...

class Layer:
    def __init__(
        self,
        *,
        router_norm: F32,
        router: F32,
        prediction_coefs: F32,
        correction_coefs: F32,
        correct_output_scale: F32,
        input_norm: F32,
        post_attention_norm: F32,
        pre_ffn_norm: F32,
        post_ffn_norm: F32,
        post_ple_norm: F32,
        post_laurel_norm: F32,
        q_norm: F32,
        k_norm: F32 | None,
        q: Matrix,
        k: Matrix | None,
        v: Matrix | None,
        o: Matrix,
        laurel_left: Matrix,
        laurel_right: Matrix,
        ple_gate: Matrix,
        ple_projection: Matrix,
        segments: list[Segment],
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        eps: float,
        sparsity_z: float,
    ) -> None: ...

class PageTable:
    def __init__(self, kind: str, num_kv_heads: int, head_dim: int, window: int) -> None: ...
    def set(self, pages: Sequence[U8]) -> None: ...
    @staticmethod
    def stack(tables: Sequence[PageTable]) -> PageTable: ...

def pack(kind: str, layout: str, dense: F32, out: npt.NDArray[Any]) -> None: ...
def unpack(matrix: Matrix, out: F32) -> None: ...
def matmul(w: Matrix, x: F32, out: F32) -> None: ...
def matmul_group(weights: Sequence[Matrix], x: F32, outs: Sequence[F32]) -> None: ...
def gather(w: Matrix, ids: I32, scale: float, out: F32) -> None: ...
def advise_rows(w: Matrix, ids: I32) -> None: ...
def rms_norm(x: F32, weight: F32 | None, eps: float, out: F32) -> None: ...
def altup_expand(e: F32, y: F32) -> None: ...
def altup_merge(x: F32, y: F32, weight: F32, eps: float, out: F32) -> None: ...
def ple_combine(projection: F32, raw: F32, weight: F32, eps: float, out: F32) -> None: ...
def logits(head: Matrix, hidden: F32, softcap: float, out: F32) -> None: ...
def top_k(values: F32, k: int) -> tuple[I32, F32]: ...
def argmax(values: F32) -> int: ...
def altup_predict(layer: Layer, x: F32, predictions: F32, normed: F32) -> None: ...
def attention(
    layer: Layer,
    normed: F32,
    active: F32,
    table: PageTable,
    sequences: I32,
    positions: I32,
    cos: F32,
    sin: F32,
    write_kv: bool,
    hidden: F32,
) -> None: ...
def write_kv(
    layer: Layer,
    normed: F32,
    table: PageTable,
    sequences: I32,
    positions: I32,
    cos: F32,
    sin: F32,
) -> None: ...
def attend(queries: F32, table: PageTable, sequences: I32, positions: I32, out: F32) -> None: ...
def feed_forward(layer: Layer, hidden: F32, width: int, out: F32) -> None: ...
def altup_correct(
    layer: Layer, predictions: F32, active_out: F32, ple_inputs: F32, x: F32
) -> None: ...

class Filter:
    def __init__(
        self,
        weights: F32 | npt.NDArray[np.uint16] | npt.NDArray[np.int8] | npt.NDArray[np.int16],
        scales: F32 | None = None,
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def nbytes(self) -> int: ...

def conv(
    filter: Filter,
    x: F32,
    stride: int,
    out: F32,
    bias: F32 | None = None,
    norm: F32 | None = None,
    eps: float = 1e-6,
    gelu: bool = False,
    gamma: F32 | None = None,
    residual: F32 | None = None,
) -> None: ...
def depthwise(
    weight: F32,
    x: F32,
    stride: int,
    out: F32,
    norm: F32 | None = None,
    eps: float = 1e-6,
    gelu: bool = False,
) -> None: ...
def inverted_bottleneck(
    expand: Filter,
    project: Filter,
    x: F32,
    out: F32,
    norm_expand: F32,
    norm_project: F32,
    eps: float,
    gamma: F32 | None = None,
    residual: F32 | None = None,
    coarse: F32 | None = None,
) -> None: ...
def attend_pixels(q: F32, k: F32, v: F32, heads: int, scale: float, out: F32) -> None: ...

class DenseMatrix:
    def __init__(self, kind: str, rows: int, cols: int, data: npt.NDArray[Any]) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def data(self) -> npt.NDArray[Any]: ...

def audio_feed_forward(
    up: DenseMatrix,
    down: DenseMatrix,
    pre_norm: F32,
    post_norm: F32,
    end_norm: F32 | None,
    gain: float,
    clip: float,
    eps: float,
    x: F32,
    out: F32,
) -> None: ...
def audio_project(
    ws: Sequence[DenseMatrix],
    norm: F32 | None,
    clip: float,
    eps: float,
    x: F32,
    outs: Sequence[F32],
) -> None: ...
def audio_add(
    w: DenseMatrix, norm: F32 | None, clip: float, eps: float, x: F32, residual: F32, out: F32
) -> None: ...
def audio_stem_conv(filter: DenseMatrix, rows: F32, out: F32) -> None: ...
def audio_attend(
    q: F32, k: F32, v: F32, valid: U8, position: F32, scale: F32, cap: float, out: F32
) -> None: ...
def audio_light_conv(
    gates: F32, past: F32, taps: F32, norm: F32, clip: float, eps: float, out: F32
) -> None: ...
def audio_group_norm(
    x: F32, weight: F32, sums: npt.NDArray[np.float64], eps: float, out: F32
) -> None: ...
def training_predict(
    x: F32,
    router_norm: F32,
    router: F32,
    coefs: F32,
    input_norm: F32,
    eps: float,
    predictions: F32,
    first: F32,
    normed: F32,
    routes: F32,
) -> None: ...
def training_predict_grad(
    x: F32,
    router_norm: F32,
    router: F32,
    coefs: F32,
    input_norm: F32,
    eps: float,
    predictions: F32,
    routes: F32,
    predictions_grad: F32,
    first_grad: F32,
    normed_grad: F32,
    x_grad: F32,
    sums: F32,
) -> None: ...
def training_norm_grad(
    x: F32,
    weight: F32 | None,
    eps: float,
    grad: F32,
    x_grad: F32,
    sums: F32,
) -> None: ...
def training_post_attention(
    first: F32,
    attended: F32,
    attended_norm: F32,
    normed: F32,
    laurel: F32,
    laurel_norm: F32,
    next_norm: F32,
    eps: float,
    hidden: F32,
    next: F32,
) -> None: ...
def training_post_attention_grad(
    attended: F32,
    attended_norm: F32,
    laurel: F32,
    laurel_norm: F32,
    next_norm: F32,
    eps: float,
    hidden: F32,
    next_grad: F32,
    hidden_grad: F32,
    attended_grad: F32,
    laurel_grad: F32,
    sums: F32,
) -> None: ...
def training_gated(
    gate: F32,
    up: F32,
    multiplier: float | None,
    act: F32,
    moments: F32,
) -> None: ...
def training_gated_grad(
    gate: F32,
    up: F32,
    multiplier: float | None,
    moments: F32,
    grad: F32,
    gate_grad: F32,
    up_grad: F32,
) -> None: ...
def training_head(
    logits: F32,
    teacher: F32 | None,
    labels: npt.NDArray[np.int64],
    cap: float,
    teacher_cap: float,
    entropy: float,
    divergence: float,
    temperature: float,
    losses: F32,
) -> None: ...
def training_rotated(
    x: F32,
    weight: F32,
    eps: float,
    cosine: F32,
    sine: F32,
    out: F32,
) -> None: ...
def training_rotated_grad(
    x: F32,
    weight: F32,
    eps: float,
    cosine: F32,
    sine: F32,
    grad: F32,
    x_grad: F32,
    sums: F32,
) -> None: ...
def training_correct_first(
    first: F32,
    active: F32,
    router_norm: F32,
    router: F32,
    coefs: F32,
    scale: F32,
    eps: float,
    gains: F32,
    routes: F32,
    scaled: F32,
) -> None: ...
def training_correct_first_grad(
    first: F32,
    active: F32,
    router_norm: F32,
    router: F32,
    coefs: F32,
    scale: F32,
    eps: float,
    gains: F32,
    routes: F32,
    scaled_grad: F32,
    gains_grad: F32,
    first_grad: F32,
    active_grad: F32,
    sums: F32,
) -> None: ...
def training_correct_all(
    predictions: F32,
    active: F32,
    gains: F32,
    added: F32,
    added_norm: F32,
    eps: float,
    x: F32,
) -> None: ...
def training_correct_all_grad(
    predictions: F32,
    active: F32,
    gains: F32,
    added: F32,
    added_norm: F32,
    eps: float,
    grad: F32,
    first_grad: F32,
    active_grad: F32,
    added_grad: F32,
    gains_grad: F32,
    sums: F32,
) -> None: ...
