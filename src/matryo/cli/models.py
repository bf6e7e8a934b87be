"""From the options of a command to an open model, a plan and the way tokens are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matryo.cli.options import GenerationOptions, LoadOptions
from matryo.cli.progress import Bar

if TYPE_CHECKING:
    from matryo.loading import Model
    from matryo.sampling import Sampling
    from matryo.session import Session


def open_model(options: LoadOptions) -> Model:
    """Load the model that the options name; a bar shows packing, if there is any."""
    import matryo

    with Bar("Packing", unit="bytes") as bar:
        return matryo.load(
            options.model,
            weights=options.weights.value if options.weights else None,
            threads=options.threads,
            context=options.context,
            progress=bar,
        )


def open_session(model: Model, options: LoadOptions) -> Session:
    """A new session of the size and K/V kind that the options name."""
    return model.session(plan=options.size, kv=options.kv.value if options.kv else None)


def sampling_of(options: GenerationOptions) -> Sampling:
    """The sampling options; what was not given is left to the checkpoint."""
    from matryo.sampling import Sampling

    return Sampling(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )
