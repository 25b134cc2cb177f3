"""A trained sparse autoencoder as plain tensors: encodes and decodes, needs neither SAELens nor transformers."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmie import tensors

TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


@dataclass(frozen=True)
class SparseCode:
    """
    A JumpReLU autoencoder (2407.14435), fp32: ``z = pre · [pre > threshold]₊``, ``pre = (x − b) W_enc + b_enc``.

    ``W_enc`` ``[d_model, d_sae]``, ``W_dec`` ``[d_sae, d_model]`` with rows of unit norm, so that a latent's activation
    is in the units of the residual stream.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    threshold: torch.Tensor
    subtracts_bias: bool = True

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Latents ``[…, d_sae]`` of ``x`` ``[…, d_model]``: the numbers that ``SAE.load_from_disk(…).encode`` gives."""
        return self._activate(self._centred(x) @ self.W_enc + self.b_enc, self.threshold)

    def encode_some(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents of these indices alone, ``[…, len(latents)]``, at their share of the cost."""
        pre = self._centred(x) @ self.W_enc[:, latents] + self.b_enc[latents]
        return self._activate(pre, self.threshold[latents])

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Reconstruction ``[…, d_model]`` of latents ``[…, d_sae]``."""
        return z @ self.W_dec + self.b_dec

    def to(self, device: torch.device | str) -> "SparseCode":
        """The same on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.W_enc.dtype) - self.b_dec * self.subtracts_bias

    @staticmethod
    def _activate(pre: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        return pre.relu() * (pre > threshold).to(pre.dtype)


def encoder_of(weights: str | Path, cfg: str | Path) -> SparseCode:
    """
    Read a SAELens folder's ``sae_weights.safetensors`` and ``cfg.json``.

    Raises ValueError naming the file when it is not a JumpReLU autoencoder on activations as they are, which is what
    this workflow trains.
    """
    try:
        settings = json.loads(Path(cfg).read_text(encoding="utf-8"))
        kind = {name: settings[name] for name in ("architecture", "normalize_activations", "reshape_activations")}
        subtracts = bool(settings["apply_b_dec_to_input"])
    except FileNotFoundError:
        raise ValueError(f"{cfg} is missing. Run `snakemake --cores 2 {cfg}` to make it.") from None
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{cfg} cannot be read ({error!r}): delete it, and Snakemake makes it again.") from None
    if kind != {"architecture": "jumprelu", "normalize_activations": "none", "reshape_activations": "none"}:
        raise ValueError(
            f"{cfg} describes {kind}; expected a jumprelu autoencoder without normalisation or reshaping. Load it in "
            "SAELens, fold its normalisation, and save it with save_inference_model."
        )
    parts = tensors.load(weights)
    if set(TENSORS) - set(parts):
        raise ValueError(
            f"{weights} has tensors {sorted(parts)}, expected {sorted(TENSORS)}. Delete it to make it again."
        )
    return SparseCode(**{name: parts[name].float() for name in TENSORS}, subtracts_bias=subtracts)
