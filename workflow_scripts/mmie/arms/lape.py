"""
Hold the neurons that are active in the forget language and hardly in others at a constant (LAPE, 2402.16438).

Language activation probability entropy: p_l(j) = E[1(act(W_gate h)_j > 0)] over the tokens of language l,
normalised to sum to 1 over languages; LAPE_j = −Σ_l p'_l(j) ln p'_l(j). Of the neurons whose largest p_l exceeds the
``bar`` quantile of all p_l(j), the ``rate`` of all neurons with the lowest LAPE are language-specific; those of the
forget language are deactivated by setting act(W_gate h)_j to 0.

Deviations. The forget language's scripts are two languages of the entropy, and both are deactivated. A neuron belongs
to the one language in which it is most often active; the authors' code gives it to every language above the bar, which
here takes neurons that Urdu uses too. Probabilities come from the training texts, thousands of tokens a language
instead of a hundred million, so that rarely active neurons are misjudged more often. Texts' first tokens are not
counted. With ``hold: mean`` a neuron is held at its mean on the kept languages, which the paper does not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import at_least, one_of

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = False


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    rate: float = 0.01
    """Share of all neurons of the model that are called language-specific, of whatever language."""
    bar: float = 0.95
    """Quantile of all activation probabilities that a neuron must exceed in some language."""
    hold: str = "zero"
    """``zero``, or ``mean``: the neuron's mean on the kept languages."""
    texts: int = 80
    """Training texts per language on which probabilities are counted."""

    def __post_init__(self) -> None:
        at_least(self, 1, "texts")
        one_of(self, "hold", "zero", "mean")
        for name in ("rate", "bar"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed: a number between 0 and 1.")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit after one pass over the texts. Raises ValueError when no neuron is the forget language's."""
    import torch

    from mmie.edits import Edit
    from mmie.examples import forgotten, kept
    from mmie.unlearn import Trained

    languages = [*forgotten(given.data), *kept(given.data, control=False)]
    active, mean = counted(model, tokenizer, given, languages, params.texts)
    chosen = specific(active, params.rate, params.bar)
    chosen &= active.argmax(-1) < len(forgotten(given.data))
    layers = tuple(chosen.any(-1).nonzero()[:, 0].tolist())
    if not layers:
        raise ValueError(
            f"no neuron is specific to {' or '.join(forgotten(given.data))} at rate: {params.rate}, bar: {params.bar}. "
            "Raise `rate` or lower `bar` of this arm."
        )
    value = mean[..., len(forgotten(given.data)) :].mean(-1) if params.hold == "mean" else torch.zeros(chosen.shape)
    tensors: dict[str, torch.Tensor] = {}
    for n in layers:
        neurons = chosen[n].nonzero()[:, 0]
        tensors |= {f"layer{n}.neurons": neurons, f"layer{n}.value": value[n, neurons].float()}
    return Trained([Edit("neurons", layers, tensors, {"hold": params.hold, "count": int(chosen.sum())})])


def counted(model: Any, tokenizer: Any, given: Sources, languages: list[str], texts: int) -> tuple[Any, Any]:
    """
    Probability that a neuron is active (above 0), and its mean, per language: two ``[layer, neuron, language]`` fp64.
    """
    import torch

    from mmie.edits.neurons import gate_of
    from mmie.model import decoder_layers
    from mmie.recording import first_texts, record

    rows = first_texts(given, False, texts)
    language_of = torch.tensor([languages.index(name) for name in rows["language"]], device=model.device)
    depth = len(decoder_layers(model))
    gates = [gate_of(model, n) for n in range(depth)]
    shape = (depth, len(languages), gates[0][1])
    active, total = (torch.zeros(shape, dtype=torch.float64, device=model.device) for _ in range(2))
    tokens = torch.zeros(len(languages), dtype=torch.float64, device=model.device)

    def see(name: str, _: torch.Tensor, out: torch.Tensor, text_of: torch.Tensor) -> None:
        n, which = int(name), language_of[text_of]
        active[n].index_add_(0, which, (out > 0).double())
        total[n].index_add_(0, which, out.double())
        if n == 0:
            tokens.index_add_(0, which, torch.ones_like(which, dtype=torch.float64))

    modules = {str(n): gate for n, (gate, _) in enumerate(gates)}
    record(model, tokenizer, rows["text"].tolist(), modules, depth - 1, see, "activation probabilities")
    return tuple((sums / tokens[:, None]).transpose(1, 2).cpu() for sums in (active, total))  # type: ignore[return-value]


def entropy(active: Any) -> Any:
    """LAPE ``[…]``, nats, from activation probabilities ``[…, language]``; 0 for a neuron that is never active."""
    import torch

    share = active / active.sum(-1, keepdim=True).clamp(min=torch.finfo(active.dtype).tiny)
    return torch.special.entr(share).sum(-1)


def specific(active: Any, rate: float, bar: float) -> Any:
    """Which neurons are language-specific, bool ``[layer, neuron]``; ``active`` is ``[layer, neuron, language]``."""
    import torch

    lape = entropy(active)
    threshold = active.flatten().kthvalue(max(1, round(active.numel() * bar))).values
    lape[(active <= threshold).all(-1)] = torch.inf
    lowest = lape.flatten().topk(max(1, round(lape.numel() * rate)), largest=False)
    chosen = torch.zeros(lape.numel(), dtype=torch.bool)
    chosen[lowest.indices[lowest.values < torch.inf]] = True
    return chosen.view(lape.shape)
