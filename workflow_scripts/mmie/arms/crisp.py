"""
Silence the forget language's latents in the weights, by low-rank adapters (CRISP, 2508.13650).

The forget loss is what the selected latents do on text in the forget language (the paper's unlearning loss); the result
is an ordinary PEFT folder that needs no autoencoder. Deviations from the paper and its code: the latents are those of
features.parquet and not its own counts; the loss is the mean pre-activation above 0 on every token of the forget
language, each latent in units of base's, where the paper averages the activations, raised by α times the mean
pre-activation, on tokens where base's latent is active; what is kept is base's predictions (KL; `retain: states` is the
paper's, at one layer instead of the autoencoders'); there is no coherence term, since the texts to keep are fluent text
in every language; rank, layers and learning rate are those of `lora`. On Gemma 3 270M it silences romanised Hindi and
not Devanagari: small autoencoders have no latents that are of Devanagari Hindi alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mmie.arms._training import Adapters, one_of
from mmie.selector_names import SELECTORS

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"sae"})
SEEDED = True


@dataclass(frozen=True)
class Params(Adapters):
    """Parameters of the arm."""

    OBJECTIVES: ClassVar[tuple[str, ...]] = ("suppress",)

    objective: str = "suppress"
    """Forget loss: ``suppress``, the activation of the selected latents."""
    selector: str = "per_script"
    """Which selection of features.parquet is suppressed, one of those that config `features.selector` may name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "selector", *SELECTORS)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Train the adapters; the model is left as it came."""
    from mmie.adapters import trained
    from mmie.latent_loss import watching
    from mmie.suppression import rows_of, selected
    from mmie.unlearn import batches_of, held_out, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
    rows, _ = rows_of(model, tokenizer, given, selected(given, params.selector))
    with watching(model, rows, batches[:2]) as latents:
        run = partial(optimise, model, batches=batches, base=base, params=params, seed=seed, held=tune, latents=latents)
        return trained(model, params, seed, run)
