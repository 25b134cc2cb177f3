"""
Take the forget language's own input directions out of linear modules, after Gram–Schmidt against the kept ones.

After UNLEARN (2408.04140): find the subspace of a task (identification), remove from it what it shares with similar
tasks by a Gram–Schmidt step on singular vectors (discrimination), and subtract the rest from the weights,
W' = W − T' (removal). Here, for a linear module with weight W ``[d_out, d_in]`` and inputs x:

1. Identification: the second moments M_f and M_k of x on the forget and on the kept languages; their eigenvectors are
   the right singular vectors of the matrix of inputs. V_k holds those of M_k that carry ``protect`` of its trace.
2. Discrimination: V' is the first ``rank`` eigenvectors of (I − V_k V_kᵀ) M_f (I − V_k V_kᵀ).
3. Removal: W' = W (I − α V' V'ᵀ), that is T' = α W V' V'ᵀ: kept inputs in the span of V_k map to what they did.

The change has rank ``rank``: it is stored as a LoRA with A = V'ᵀ and B = −α W V', which PEFT reads.

Deviations. The paper identifies a task by training each layer of a randomly initialised copy of the model on it, one
layer at a time; T is that weight. Here T is the part of the model's own W that reads the task's inputs: no training,
and no second model. The Gram–Schmidt step comes before the forget directions are ranked, so that ``rank`` counts
directions that are the forget language's own. Every language counts the same, texts' first tokens are not counted,
and moments are taken around 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import above, at_least, increasing_layers

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = False

ALIKE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Modules of one parent that read the same input."""
SMALLEST = 1e-9
"""Directions with less than this share of the forget languages' second moment are rounding."""


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    layers: tuple[int, ...] = (6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    """Decoder layers whose linear modules are changed."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear modules that are changed."""
    rank: int = 16
    """Directions taken out of each module's input."""
    protect: float = 0.95
    """Share of the kept languages' second moment whose directions stay untouched."""
    alpha: float = 1.0
    """How much of a direction is taken away: 1 removes it."""
    texts: int = 40
    """Training texts per language on which moments are taken."""
    control: bool = True
    """Count shuffled text in the forget language's script among the kept languages."""

    def __post_init__(self) -> None:
        increasing_layers(self)
        at_least(self, 1, "rank", "texts")
        above(self, 0, "alpha")
        if not self.modules:
            raise ValueError("modules: [] is not allowed: one or more names of linear modules, such as q_proj.")
        if not 0 <= self.protect < 1:
            raise ValueError(f"protect: {self.protect} is not allowed: a number from 0 to below 1.")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit after one pass over the texts. Raises ValueError when a module is unknown or quantised."""
    from mmie.edits import Edit
    from mmie.edits.lora import PREFIX
    from mmie.unlearn import Trained

    modules = linear_modules(model, params.layers, params.modules)
    tensors: dict[str, Any] = {}
    for names, forget, keep in moments(model, tokenizer, given, modules, params):
        own = own_directions(forget, keep, params.rank, params.protect)
        for name in names:
            weight = modules[name].weight.double().to(own.device)
            tensors[f"{PREFIX}{name}.lora_A.weight"] = own.T.float().contiguous()
            tensors[f"{PREFIX}{name}.lora_B.weight"] = (-params.alpha * weight @ own).float()
    facts = {"r": params.rank, "lora_alpha": params.rank, "target_modules": sorted(params.modules)}
    return Trained([Edit("lora", params.layers, tensors, facts)])


def linear_modules(model: Any, layers: tuple[int, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """Path → linear module called one of ``names`` in one of ``layers``."""
    from mmie.model import decoder_layers

    decoder = decoder_layers(model)
    wanted = {id(m) for n in layers if n < len(decoder) for m in decoder[n].modules()}
    found = {
        path: module
        for path, module in model.named_modules()
        if path.split(".")[-1] in names and id(module) in wanted and hasattr(module, "in_features")
    }
    missing = sorted(set(names) - {path.split(".")[-1] for path in found})
    if missing or layers[-1] >= len(decoder):
        raise ValueError(
            f"modules: {missing or list(names)} of layers: {list(layers)} are not in this model of {len(decoder)} "
            "layers. Choose the arm's `layers` and `modules` among those it has."
        )
    quantised = next((path for path, module in found.items() if not module.weight.is_floating_point()), None)
    if quantised:
        raise ValueError(
            f"module {quantised} is quantised, and this arm works on its weights: config `model.quantisation: none`."
        )
    return found


def moments(
    model: Any, tokenizer: Any, given: Sources, modules: dict[str, Any], params: Params
) -> Iterator[tuple[list[str], Any, Any]]:
    """
    For each distinct input of ``modules``: the modules that read it, and its second moments ``[d_in, d_in]`` fp64 on
    the forget and on the kept languages, each the mean of the languages'.
    """
    import torch

    from mmie.batches import encode
    from mmie.examples import forgotten
    from mmie.recording import first_texts, record

    rows = first_texts(given, params.control, params.texts)
    rows["tokens"] = [len(encode(tokenizer, text)) - 1 for text in rows["text"]]
    rows["forget"] = rows["language"].isin(forgotten(given.data))
    per_language = rows.groupby("language")["tokens"].transform("sum")
    languages = rows.groupby("forget")["language"].transform("nunique")
    weight = torch.tensor((1 / (per_language * languages)).to_numpy(), device=model.device)
    forget = torch.tensor(rows["forget"].to_numpy(), device=model.device)

    readers: dict[str, list[str]] = {}
    for path in modules:
        readers.setdefault(input_of(path), []).append(path)
    first = {paths[0]: modules[paths[0]] for paths in readers.values()}
    sums = {
        path: torch.zeros(2, module.in_features, module.in_features, device=model.device)
        for path, module in first.items()
    }

    def see(name: str, x: torch.Tensor, _: torch.Tensor, text_of: torch.Tensor) -> None:
        for side, rows_of_side in enumerate((forget[text_of], ~forget[text_of])):
            part = x[rows_of_side]
            sums[name][side].addmm_((part * weight[text_of][rows_of_side, None].float()).T, part)

    record(model, tokenizer, rows["text"].tolist(), first, max(params.layers), see, "second moments")
    for paths in readers.values():
        yield paths, *sums.pop(paths[0]).double()


def input_of(path: str) -> str:
    """A name of what the module at ``path`` reads, the same for modules that read the same."""
    parent, _, leaf = path.rpartition(".")
    return f"{parent}.{next((group[0] for group in ALIKE if leaf in group), leaf)}"


def own_directions(forget: Any, keep: Any, rank: int, protect: float) -> Any:
    """
    V' ``[d_in, rank]`` of the module's docstring, from second moments ``[d_in, d_in]``.

    Its columns are orthonormal and orthogonal to V_k; where fewer than ``rank`` directions are left, the others are 0.
    """
    import torch

    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(keep))
    count = int((values.cumsum(0) < protect * values.sum()).sum()) + (protect > 0)
    shared = vectors[:, :count]
    rest = torch.eye(len(keep), dtype=keep.dtype, device=keep.device) - shared @ shared.T
    energy, own = (part.flip(-1) for part in torch.linalg.eigh(rest @ forget @ rest))
    kept = torch.zeros(len(keep), rank, dtype=keep.dtype, device=keep.device)
    left = min(rank, len(keep) - count)
    kept[:, :left] = own[:, :left] * (energy[:left] > SMALLEST * forget.trace())
    return kept
