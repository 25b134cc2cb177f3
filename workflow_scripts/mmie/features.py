"""Which latents are the forget language's: scored on the train split, confirmed on the tune split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from mmie.selector_names import SELECTORS
from mmie.sparse_code import SparseCode
from mmie.storage import States

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

CHUNK = 2048
"""Tokens encoded at a time: at 16 k latents 128 MiB."""
FISHER_PERCENTILE = 95
"""Of the living latents' ratios: below it a latent is not the forget language's (DSG, 2504.08192)."""


@dataclass(frozen=True)
class Languages:
    """The languages of the cache by the part they play; the scripts of the forget language count one each."""

    forget: tuple[str, ...]
    others: tuple[str, ...]
    """English and the neighbours."""
    controls: tuple[str, ...]
    """Derived texts: a script without the language."""

    @classmethod
    def of(cls, tokens: pd.DataFrame) -> "Languages":
        """From tokens as from `mmie.cache.described`."""
        pairs = tokens[["role", "language"]].drop_duplicates().sort_values("language")

        def having(*roles: str) -> tuple[str, ...]:
            return tuple(pairs.loc[pairs["role"].isin(roles), "language"])

        return cls(having("forget"), having("retain", "neighbour"), having("control"))

    @property
    def spoken(self) -> tuple[str, ...]:
        """Those with texts of their own, forget first."""
        return (*self.forget, *self.others)

    @property
    def all(self) -> tuple[str, ...]:
        """Every language, forget first, controls last."""
        return (*self.spoken, *self.controls)


@dataclass(frozen=True)
class Means:
    """What the latents do on the tokens of one split."""

    languages: tuple[str, ...]
    mean: Array
    """Mean activation, ``[language, latent]``."""
    square: Array
    """Mean squared activation, ``[language, latent]``."""
    influence: Array
    """As from `mmie.influence`, ``[language, latent]`` of the languages besides the controls."""
    fires: Array
    """Tokens on which the latent fires, ``[latent]``."""
    n_tokens: int

    def of(self, names: Sequence[str], what: str = "mean") -> Array:
        """``mean``, ``square`` or ``influence`` in these languages, ``[len(names), latent]``."""
        return getattr(self, what)[[self.languages.index(name) for name in names]]


@torch.inference_mode()
def measure(
    code: SparseCode, states: States, tokens: pd.DataFrame, languages: Languages, split: str, influence: Array
) -> Means:
    """
    Mean activation of every latent per language over the tokens of a split.

    ``states`` ``[token, d_model]``, ``tokens`` as from `mmie.cache.described`, ``influence`` of the split's texts as
    from `mmie.influence`. Raises ValueError when a language has no token in the split.
    """
    place = {name: i for i, name in enumerate(languages.all)}
    part = tokens[tokens["split"] == split]
    codes = torch.tensor(part["language"].map(place).to_numpy())
    counts = torch.bincount(codes, minlength=len(place))
    if not bool((counts > 0).all()):
        empty = [name for name, i in place.items() if not counts[i]]
        raise ValueError(f"no cached token of {empty} in the {split} split: raise config `data.splits.{split}`.")
    total = torch.zeros(len(place), code.b_enc.numel(), dtype=torch.float64)
    square = torch.zeros_like(total)
    fires = torch.zeros(code.b_enc.numel(), dtype=torch.float64)
    rows = torch.tensor(part["row"].to_numpy())
    for chunk, which in zip(rows.split(CHUNK), codes.split(CHUNK), strict=True):
        z = code.encode(states[chunk]).double()
        total.index_add_(0, which, z)
        square.index_add_(0, which, z.square())
        fires += (z > 0).sum(0)
    mean, mean_square = ((sums / counts[:, None]).numpy() for sums in (total, square))
    return Means(languages.all, mean, mean_square, influence, fires.numpy(), len(rows))


def contrast(means: Means, languages: Languages, what: str = "mean") -> Array:
    """Mean over Hindi's scripts minus mean over English and the neighbours, ``[latent]``."""
    return means.of(languages.forget, what).mean(0) - means.of(languages.others, what).mean(0)


def by_script(means: Means, languages: Languages) -> Array:
    """Per Hindi script, its mean minus the largest mean on English, neighbours and controls, ``[script, latent]``."""
    return means.of(languages.forget) - means.of((*languages.others, *languages.controls)).max(0)


def fisher_share(means: Means, languages: Languages) -> Array:
    """
    f / (f + r), ``[latent]``, 0 for a latent that never fires: f the mean squared activation on Hindi, r on the others.

    It orders latents as DSG's importance ratio f / r does (2504.08192, section 3), and is finite where r is 0.
    """
    forget, others = (means.of(names, "square").mean(0) for names in (languages.forget, languages.others))
    return np.divide(forget, forget + others, out=np.zeros_like(forget), where=forget > 0)


def scores(means: Means, languages: Languages) -> dict[str, Array]:
    """
    The selectors' scores, each ``[latent]``; a latent of Hindi has a positive one.

    ``contrast``, ``semantic`` and ``per_script`` are in the units of the residual stream. ``semantic`` asks one latent
    to fire on Hindi in every script and to be quiet on everything else; ``per_script`` asks it of one script. Latents
    of the second kind make up a language that a model keeps apart by script.

    ``fisher`` is the mean squared activation on Hindi, 0 where its ratio to that on the other languages is below the
    `FISHER_PERCENTILE` (DSG; the paper has no neighbours, here they count as what to keep). ``grad`` is `contrast` of
    the influence on predictions (GradSAE; the paper ranks the latents of one input and has nothing to keep: without
    the difference, latents that matter in every language win).
    """
    script, share = by_script(means, languages), fisher_share(means, languages)
    alive = means.fires > 0
    cut = np.percentile(share[alive], FISHER_PERCENTILE, method="higher") if alive.any() else np.inf
    return {
        "contrast": contrast(means, languages),
        "semantic": script.min(0),
        "per_script": script.max(0),
        "fisher": np.where(share >= cut, means.of(languages.forget, "square").mean(0), 0.0),
        "grad": contrast(means, languages, "influence"),
    }


def confirmation(means: Means, languages: Languages, selector: str) -> Array:
    """
    Positive for a latent that a split confirms as Hindi's, ``[latent]``: its score; for ``fisher`` that it is more
    active on Hindi than on the others. A percentile is relative, and says nothing of a split by itself.
    """
    return fisher_share(means, languages) - 0.5 if selector == "fisher" else scores(means, languages)[selector]


def select(train: Means, tune: Means, languages: Languages, selector: str, count: int) -> Indices:
    """
    The latents of a selector, at most ``count``, best first.

    The highest scores on the train split among those that are positive there and confirmed by the tune split.
    ``per_script`` takes equally many for each script, so that the latents together cover the language.
    """
    if selector == "per_script":
        share = _shares(count, len(languages.forget))
        pairs = zip(by_script(train, languages), by_script(tune, languages), share, strict=True)
        # A latent is above everything else in at most one script unless it is semantic: then it counts once.
        return np.array(list(dict.fromkeys(i for a, b, n in pairs for i in _top(a, b, n))), dtype=np.int64)
    return _top(scores(train, languages)[selector], confirmation(tune, languages, selector), count)


def features(train: Means, tune: Means, languages: Languages, selector: str, count: int, seed: int) -> pd.DataFrame:
    """
    One row per latent (`tables.FEATURES` without site and layer).

    Raises ValueError when the configured selector takes no latent, or when too few others are alive for the random
    control.
    """
    score = scores(train, languages)
    taken = {name: select(train, tune, languages, name, count) for name in SELECTORS}
    chosen = taken[selector]
    if not len(chosen):
        others = ", ".join(f"{name} {len(found)}" for name, found in taken.items() if name != selector)
        raise ValueError(
            f"config `features.selector: {selector}` finds no latent that fires more on the forget language than on "
            f"everything else (others find: {others}). Choose another, or train longer (config `sae.steps`)."
        )
    alive = train.fires > 0
    free = np.setdiff1d(np.flatnonzero(alive), chosen)
    if len(free) < len(chosen):
        raise ValueError(
            f"the random control needs {len(chosen)} latents besides the selected ones, and {len(free)} are alive. "
            "Lower config `features.count`, or raise `sae.d_sae`."
        )
    drawn = np.random.default_rng(seed).choice(free, len(chosen), replace=False)
    latents = np.arange(len(alive))
    return pd.DataFrame(
        {
            "latent": latents,
            "alive": alive,
            "frequency": train.fires / train.n_tokens,
            **score,
            "fisher_share": fisher_share(train, languages),
            **{f"{name}_selected": np.isin(latents, found) for name, found in taken.items()},
            "random_selected": np.isin(latents, drawn),
            "why": why(train, tune, languages, selector, chosen, alive),
        }
    )


def why(
    train: Means, tune: Means, languages: Languages, selector: str, chosen: Indices, alive: npt.NDArray[np.bool_]
) -> list[str]:
    """For each latent, in words, why the configured selector took it or not."""
    on_train, on_tune = scores(train, languages)[selector], confirmation(tune, languages, selector)
    rest = (*languages.others, *languages.controls) if selector in ("semantic", "per_script") else languages.others
    what, does = ("influence", "matters") if selector == "grad" else ("mean", "fires")
    loudest = train.of(rest, what).argmax(0)
    forget = train.of(languages.forget, what)
    heard = forget.min(0) if selector == "semantic" else forget.max(0)
    taken = set(chosen.tolist())

    def reason(i: int) -> str:
        if i in taken:
            return "taken"
        if not alive[i]:
            return "never fires"
        if heard[i] == 0:
            silent = [name for name, mean in zip(languages.forget, forget[:, i], strict=True) if mean == 0]
            return f"quiet on {' and '.join(silent)}"
        if on_train[i] <= 0:
            return f"{does} on {rest[loudest[i]]}"
        if on_tune[i] <= 0:
            return "not confirmed on the tune split"
        return f"score below the {len(taken)} taken"

    return [reason(i) for i in range(len(alive))]


def _top(train: Array, tune: Array, count: int) -> Indices:
    best = np.argsort(-train, kind="stable").astype(np.int64)
    return best[(train[best] > 0) & (tune[best] > 0)][:count]


def _shares(count: int, parts: int) -> list[int]:
    """``count`` in equal parts, the first ones larger by one where it does not divide."""
    return [count // parts + (i < count % parts) for i in range(parts)]
