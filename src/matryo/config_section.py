"""One JSON object of a config.json, read so that nothing in it is overlooked.

In: an untrusted object. Out: checked values; a key that was neither read nor named as meaningless
is refused, since it may change the arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from matryo.errors import ConfigError

# Generation settings and class switches that older releases wrote into every nested config, all at
# their defaults.
_LEGACY_KEYS = frozenset(
    """add_cross_attention bad_words_ids begin_suppress_tokens cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id is_decoder length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix
    pruned_heads remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tokenizer_class top_k top_p torchscript typical_p use_bfloat16""".split()
)


class Section:
    """Reads keys of one JSON object with checks, and remembers which keys were used."""

    def __init__(
        self, values: Mapping[str, object], name: str, ignored: Collection[str] = ()
    ) -> None:
        """name: of the object, for messages · ignored: keys that may be there and mean nothing."""
        self._values, self._name, self._ignored = values, name, frozenset(ignored)
        self._used: set[str] = {"dtype", "torch_dtype"}

    def value(self, key: str) -> object:
        """The value of a key, None if there is none."""
        self._used.add(key)
        return self._values.get(key)

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number. Raises ConfigError if it is none, or missing without a default."""
        value = self.value(key)
        value = default if value is None else value
        if value is None:
            raise ConfigError(f"{key} is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{key} is {shown(value)}; allowed: an integer from {low} to {high}")
        return value

    def real(self, key: str, default: float, low: float, high: float) -> float:
        """A number. Raises ConfigError if it is none or outside the range."""
        value = self.value(key)
        return real(key, default if value is None else value, low, high)

    def must_be(self, key: str, *allowed: object) -> None:
        """Raises ConfigError if the key is there with a value that is not allowed."""
        value = self.value(key)
        if value is not None and not any(value == a and type(value) is type(a) for a in allowed):
            raise ConfigError(
                f"{key} is {shown(value)}; only {' or '.join(map(shown, allowed))} is supported"
            )

    def optional_id(self, key: str, vocab_size: int) -> int | None:
        """A token id, None if there is none."""
        return None if self.value(key) is None else self.integer(key, None, 0, vocab_size - 1)

    def refuse_unknown(self) -> None:
        """Raises ConfigError for a key that nothing has asked for and nobody said to ignore."""
        unknown = sorted(set(self._values) - self._used - self._ignored - _LEGACY_KEYS)
        if unknown:
            raise ConfigError(
                f"unknown key {shown(unknown[0])} in {self._name}; it may change the "
                "arithmetic, so it is refused rather than dropped"
            )


def real(key: str, value: object, low: float, high: float) -> float:
    """The value as a number. Raises ConfigError if it is none or outside the range."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # NaN fails the comparison
        raise ConfigError(f"{key} is {shown(value)}; allowed: a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]


def shown(value: object) -> str:
    """A value for a message, cut short: hostile files hold long ones."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
