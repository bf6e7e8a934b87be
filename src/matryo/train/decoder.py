"""The decoder of transformers at any plan: its modules' classes, changed in place by `nested.nest`.

In: streams, masks, `plan=` and `known=` among the arguments. Out: the values and gradients of
transformers' own modules, at full width, and of the cut-out model at a plan. On a processor, in
float32, what lies between the products is one native operation each (`fused.py`); elsewhere
transformers' code runs.

B batch · T tokens · d model · A streams
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import KVSharingDict
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gemma3n.modeling_gemma3n import (
    Gemma3nTextAttention,
    Gemma3nTextDecoderLayer,
    Gemma3nTextMLP,
    Gemma3nTextModel,
    eager_attention_forward,
)

from matryo.plan import Plan
from matryo.train.native import fused_operations

NUM_STREAMS = 4  # that the native operations take


class NestedMLP(Gemma3nTextMLP):
    """The FFN restricted to its first `width` units."""

    width: int

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to the same shape."""
        if not _fuses(hidden_states):
            return self._plain(hidden_states)
        gate, up = self._inputs(hidden_states)
        multiplier = _multiplier(self.activation_sparsity) if self.activation_sparsity else None
        return self._down(fused_operations().Gated.apply(gate, up, multiplier))

    def _plain(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.width == self.intermediate_size:
            return super().forward(hidden_states)
        gate, up = self._inputs(hidden_states)
        if self.activation_sparsity > 0.0:
            gate = self._gaussian_topk(gate)
        return self._down(self.act_fn(gate) * up)

    def _inputs(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gate and up (B, T, width). The modules themselves at full width: an adapter may be on."""
        if self.width == self.intermediate_size:
            return self.gate_proj(hidden_states), self.up_proj(hidden_states)
        gate = functional.linear(hidden_states, self.gate_proj.weight[: self.width])
        return gate, functional.linear(hidden_states, self.up_proj.weight[: self.width])

    def _down(self, units: torch.Tensor) -> torch.Tensor:
        if self.width == self.intermediate_size:
            found: torch.Tensor = self.down_proj(units)
            return found
        return functional.linear(units, self.down_proj.weight[:, : self.width])


class NestedAttention(Gemma3nTextAttention):
    """transformers' attention with the norm and the rotation of its heads as one operation."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any,
        attention_mask: torch.Tensor | None,
        past_key_values: Any = None,
        shared_kv_states: Any = None,
        **kwargs: Any,
    ) -> Any:
        """(B, T, d) to the same shape, and the weights of the attention if it has them."""
        if past_key_values is not None or not _fuses(hidden_states):
            return super().forward(
                hidden_states, position_embeddings, attention_mask, past_key_values,
                shared_kv_states, **kwargs,
            )  # fmt: skip
        fused, (cosine, sine) = fused_operations(), position_embeddings
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)

        def turned(heads: torch.Tensor, norm: Any) -> torch.Tensor:
            out: torch.Tensor = fused.Rotated.apply(
                heads.view(shape), norm.weight, norm.eps, cosine, sine
            )
            return out.transpose(1, 2)

        query = turned(self.q_proj(hidden_states), self.q_norm)
        if self.is_kv_shared_layer:
            key, value = shared_kv_states[self.layer_type]
        else:
            key = turned(self.k_proj(hidden_states), self.k_norm)
            value = self.v_proj(hidden_states).view(shape)
            value = fused.Norm.apply(value, None, self.v_norm.eps).transpose(1, 2)
        if self.store_full_length_kv:
            shared_kv_states[self.layer_type] = key, value
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        out, weights = attend(
            self, query, key, value, attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling, sliding_window=self.sliding_window, **kwargs,
        )  # fmt: skip
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights


class NestedLayer(Gemma3nTextDecoderLayer):  # type: ignore[no-untyped-call]
    """A decoder layer at the width of a plan, or left out by it."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Streams (A, B, T, d) to the same shape; `plan` among the arguments, absent = all of it.

        The plan is an argument, not a state: with gradient checkpointing this runs again during
        the backward pass, perhaps after a pass at another plan.
        """
        plan: Plan | None = kwargs.pop("plan", None)
        known: Shared | None = kwargs.pop("known", None)
        mlp: Any = self.mlp
        width: int = mlp.intermediate_size
        if plan is not None:
            if self.layer_idx not in plan.layers:
                return hidden_states
            width = plan.ffn_width[plan.layers.index(self.layer_idx)]
        mlp.width = width
        if known is not None and plan is not None:
            return known.layer(self, plan, hidden_states, *args, **kwargs)
        return self.computed(hidden_states, *args, **kwargs)

    def computed(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer at the width that was set."""
        if self._fuses(hidden_states, kwargs):
            return self._fused(hidden_states, *args, **kwargs)
        return super().forward(hidden_states, *args, **kwargs)

    def _fuses(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> bool:
        config = self.config
        return (
            _fuses(hidden_states)
            and kwargs.get("past_key_values") is None
            and (config.altup_num_inputs, config.altup_active_idx) == (NUM_STREAMS, 0)
            and bool(config.altup_correct_scale)
            and config.hidden_activation == "gelu_pytorch_tanh"
        )

    def _fused(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any,
        per_layer_input: torch.Tensor,
        **kwargs: Any,
    ) -> torch.Tensor:
        """What transformers' layer computes, in the order in which it does."""
        fused, altup, clip = fused_operations(), self.altup, self.config.altup_coef_clip
        correction = altup.correction_coefs.weight
        if self.training and clip is not None:
            altup.prediction_coefs.weight.data.clamp_(-clip, clip)
            correction = correction.clamp(-clip, clip)
        router = altup.router_norm.weight, altup.modality_router.weight
        eps = self.input_layernorm.eps
        predictions, first, normed = fused.Predict.apply(
            hidden_states, *router, altup.prediction_coefs.weight, self.input_layernorm.weight, eps
        )
        laurel = self.laurel.linear_right(self.laurel.linear_left(normed))
        attended, _ = self.self_attn(
            hidden_states=normed, position_embeddings=position_embeddings, **kwargs
        )
        hidden, following = fused.PostAttention.apply(
            first, attended, self.post_attention_layernorm.weight,
            normed, laurel, self.laurel.post_laurel_norm.weight,
            self.pre_feedforward_layernorm.weight, eps,
        )  # fmt: skip
        units = self.mlp(following)
        active = hidden + fused.Norm.apply(units, self.post_feedforward_layernorm.weight, eps)
        gains, scaled = fused.CorrectFirst.apply(
            first, active, *router, correction, altup.correct_output_scale, eps
        )
        gated = fused.Gated.apply(self.per_layer_input_gate(scaled), per_layer_input, None)
        added = self.per_layer_projection(gated)
        corrected: torch.Tensor = fused.CorrectAll.apply(
            predictions, active, gains, added, self.post_per_layer_input_norm.weight, eps
        )
        return corrected


class NestedTextModel(Gemma3nTextModel):  # type: ignore[no-untyped-call]
    """transformers' decoder, its streams and per-layer inputs taken apart once: a slice of a large
    tensor has a gradient of that size, mostly zeros.
    """

    def forward(
        self,
        input_ids: Any = None,
        per_layer_inputs: torch.Tensor | None = None,
        attention_mask: Any = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As transformers' own, without a cache: final hidden states after the norm."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        if use_cache or past_key_values is not None or given is None or not self._fuses():
            return super().forward(
                input_ids=input_ids, per_layer_inputs=per_layer_inputs,
                attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=past_key_values, inputs_embeds=inputs_embeds,
                use_cache=use_cache, **kwargs,
            )  # fmt: skip
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
            per_layer_inputs = self.get_per_layer_inputs(input_ids)
        slots = self.project_per_layer_inputs(inputs_embeds, per_layer_inputs).unbind(2)
        if position_ids is None:
            position_ids = torch.arange(given.shape[1], device=given.device)[None]
        masks = attention_mask
        if not isinstance(masks, dict):
            seen: dict[str, Any] = {
                "config": self.config, "inputs_embeds": inputs_embeds,
                "attention_mask": attention_mask, "past_key_values": None,
                "position_ids": position_ids,
            }  # fmt: skip
            masks = {
                "full_attention": create_causal_mask(**seen),
                "sliding_attention": create_sliding_window_causal_mask(**seen),
            }
        kinds: Any = self.config.layer_types
        angles = {
            kind: self.rotary_emb(inputs_embeds, position_ids, kind) for kind in sorted(set(kinds))
        }
        others = [projection(inputs_embeds) for projection in self.altup_projections]
        streams = torch.stack([inputs_embeds, *_as_large_as(inputs_embeds, others)])
        shared = KVSharingDict()
        for number, layer in enumerate(self.layers):
            streams = layer(
                streams, angles[kinds[number]], slots[number], shared_kv_states=shared,
                attention_mask=masks[kinds[number]], position_ids=position_ids, **kwargs,
            )  # fmt: skip
        first, *rest = streams.unbind(0)
        others = [
            projection(stream)
            for projection, stream in zip(self.altup_unembed_projections, rest, strict=True)
        ]
        merged = torch.stack([first, *_as_large_as(first, others)]).mean(0)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(merged))

    def _fuses(self) -> bool:
        return _fuses(self.embed_tokens.weight)


def _as_large_as(first: torch.Tensor, others: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The others with the root mean square of the first, token by token."""
    wanted = first.square().mean(-1, keepdim=True) ** 0.5
    return [
        other * (wanted / other.square().mean(-1, keepdim=True).clamp(min=1e-5).sqrt())
        for other in others
    ]


class Shared:
    """What the passes of one batch have in common: the layers that their plans run alike, counted
    from the first. A later pass goes on where it parts from the earlier ones.

    Its losses have one graph: go backward once, through their sum.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[torch.Tensor, dict[str, Any]]] = {}

    def layer(
        self, layer: NestedLayer, plan: Plan, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Streams after the layer, computed or known; keys and values it owns are put in place."""
        until = plan.layers.index(layer.layer_idx) + 1
        # A pass without gradients leaves nothing behind for one with them.
        key = plan.layers[:until], plan.ffn_width[:until], torch.is_grad_enabled()
        kept: Any = kwargs["shared_kv_states"]
        if key not in self._known:
            before = dict(kept)
            out = layer.computed(hidden_states, *args, **kwargs)
            new = {kind: kv for kind, kv in kept.items() if kv is not before.get(kind)}
            self._known[key] = out, new
        out, new = self._known[key]
        for kind, kv in new.items():
            kept[kind] = kv
        return out


def _fuses(tensor: torch.Tensor) -> bool:
    """Whether the native operations take it."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and fused_operations() is not None
    )


@functools.cache
def _multiplier(sparsity: float) -> float:
    """Deviations above the mean that leave out the share `sparsity` of a normal distribution, in
    float32 as in transformers.
    """
    normal = torch.distributions.normal.Normal(0, 1)
    return float(normal.icdf(torch.tensor(sparsity, dtype=torch.float32)))
