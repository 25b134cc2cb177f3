"""
Clamp the forget language's latents below zero in texts where they are active often (DSG, 2504.08192).

Section 3 of the paper: ρ(x), the share of tokens on which a selected latent is active, against τ, a percentile of ρ on
texts to keep; above it the active latents are set to −c. Deviations: ρ is that of the text up to each token, since a
whole text is not known while it is written; τ is the highest of the percentiles over all prefixes in each language to
keep, neighbours too; of the selected latents those are taken that tell a script of the forget language by how often
they are active, and each script and site has its own guardrail, for a latent of one script says nothing of the other;
c is a share of the residual stream's norm instead of an absolute number; the reconstruction error stays in the stream.
The paper's own selection, `selector: fisher`, finds latents of romanised Hindi only. On Gemma 3 270M romanised Hindi
is silenced and Devanagari only in part, and what is written instead is broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import above, at_least, one_of
from mmie.selector_names import SELECTORS

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations", "sae"})
SEEDED = False


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    selector: str = "per_script"
    """Which selection of features.parquet is clamped, one of those that config `features.selector` may name."""
    count: int = 2
    """Of the selected latents, how many per site and script: of many, one is active on nearly every token."""
    percentile: float = 95.0
    """Percentile of ρ on texts to keep above which the guardrail acts, in the language where it is highest."""
    clamp: float = 0.3
    """c, as a share of the mean norm of the residual stream."""
    min_tokens: int = 4
    """Tokens of a text before which the guardrail does not act: the share of fewer says little."""

    def __post_init__(self) -> None:
        one_of(self, "selector", *SELECTORS)
        above(self, 0, "percentile")
        at_least(self, 0, "clamp")
        at_least(self, 1, "count", "min_tokens")
        if self.percentile >= 100:
            raise ValueError(f"percentile: {self.percentile} is not allowed: a number below 100.")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """
    One edit per script, from the selected latents of every site and the cached activations of texts to keep.

    Raises ValueError when no selected latent tells any script.
    """
    import torch

    from mmie.edits import Edit
    from mmie.examples import forgotten
    from mmie.guardrail import cached, mean_norm, telling, threshold
    from mmie.suppression import codes, rows_of, selected
    from mmie.unlearn import Trained

    chosen, edits = selected(given, params.selector), []
    sites = [(code, *cached(given, layer)) for code, (layer, _) in zip(codes(given), chosen, strict=True)]
    for language in forgotten(given.data):
        told = [
            (layer, telling(code, latents, states, tokens, language, params.count) if latents else [])
            for (code, states, tokens), (layer, latents) in zip(sites, chosen, strict=True)
        ]
        if not any(latents for _, latents in told):
            continue
        found, facts = rows_of(model, tokenizer, given, told)
        for (code, states, tokens), (layer, latents) in zip(sites, told, strict=True):
            if latents:
                tau = threshold(code, latents, states, tokens, params.percentile, params.min_tokens)
                found[f"layer{layer}.tau"] = torch.tensor([tau])
                found[f"layer{layer}.clamp"] = torch.tensor([params.clamp * mean_norm(states)])
        facts |= {"language": language, "special": sorted(set(tokenizer.all_special_ids))}
        facts |= {"min_tokens": params.min_tokens}
        edits.append(Edit("dsg", tuple(sorted(int(n) for n in facts["latents"])), found, facts))
    if not edits:
        raise ValueError(
            f"selector: none of the latents that {params.selector!r} takes is active more often in the forget language "
            "than in the others: no guardrail can be built. Train the autoencoders longer (config `sae.steps`)."
        )
    return Trained(edits)
