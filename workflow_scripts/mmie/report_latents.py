"""What the report says of the autoencoders: the latents chosen, their tokens, and how they fit the edited models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmie.labels import language_name, number
from mmie.palette import arm_colours
from mmie.samples import printable

LATENTS_SHOWN = 12
SELECTORS = ("semantic", "per_script", "contrast")


def latents(
    features: pd.DataFrame,
    quality: pd.DataFrame,
    tokens: pd.DataFrame,
    storage: pd.DataFrame,
    transfer: pd.DataFrame,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """
    Per site, as plain values: how good its autoencoder is, the latents that the configured selector took, the tokens
    that they are most active on, what storing its activations has cost, and how well it describes each edited model.

    ``settings``: as of `mmie.report.compose`.
    """
    selector = settings["selector"]
    others = [name for name in SELECTORS if name != selector]
    found = []
    for site in sorted(set(features["site"])):
        rows = features[features["site"] == site]
        chosen = rows[rows[f"{selector}_selected"]].sort_values([selector, "latent"], ascending=[False, True])
        shown = chosen.head(LATENTS_SHOWN)
        layer = int(rows["layer"].iloc[0])
        overall = quality[(quality["site"] == site) & (quality["language"] == "all")]
        found.append(
            {
                "site": int(site),
                "layer": layer,
                "selector": _words(selector),
                "scores": [_words(name) for name in (selector, *others)],
                "alive": f"{int(rows['alive'].sum())} of {len(rows)}",
                "count": len(chosen),
                "quality": {
                    "explained variance": number(float(overall["explained_variance"].iloc[0])),
                    "active latents per token": number(float(overall["l0"].iloc[0])),
                    "dead": f"{overall['dead_share'].iloc[0]:.1%}",
                    "cost of the reconstruction": f"{number(float(overall['ce_delta'].iloc[0]))} nats per token",
                    **_stored(storage, layer),
                }
                if len(overall)
                else {},
                "rows": [
                    {
                        "latent": int(row["latent"]),
                        "frequency": f"{row['frequency']:.2%}",
                        "scores": [number(row[name]) for name in (selector, *others)],
                        "also": ", ".join(_words(name) for name in others if row[f"{name}_selected"]),
                    }
                    for row in shown.to_dict("records")
                ],
                "tokens": _tokens(tokens[tokens["site"] == site], shown["latent"].tolist(), settings["data"]),
                "transfer": _transfer(transfer[transfer["site"] == site], settings),
            }
        )
    return found


def _stored(storage: pd.DataFrame, layer: int) -> dict[str, str]:
    """What the cached activations of the layer have lost by how they are stored."""
    found = storage.set_index("layer").loc[layer]
    return {f"variance of the activations lost by storing them as {found['storage']}": f"{found['variance_lost']:.3%}"}


def _tokens(tokens: pd.DataFrame, shown: list[int], data: Mapping[str, Any]) -> dict[str, Any]:
    """Header and one row per latent: in each language, the tokens with their largest activations, best first."""
    first = [code for code in data["forget"].values() if code]
    languages = [*first, *sorted(set(tokens["language"]) - set(first))]
    cells = {
        key: [(printable(row.token), number(row.activation)) for row in part.sort_values("rank").itertuples()]
        for key, part in tokens.groupby(["latent", "language"])
    }
    rows = [{"latent": latent, "cells": [cells.get((latent, name), []) for name in languages]} for latent in shown]
    return {"header": [(name, language_name(name)) for name in languages], "rows": rows if cells else []}


def _transfer(transfer: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Header and one row per arm, mean over its seeds: what the autoencoder of base makes of the edited model."""
    data, arms = settings["data"], [entry["arm"] for entry in settings["arms"]]
    forget = [code for code in data["forget"].values() if code]
    columns = ["explained_variance", "l0", "ce", "ce_delta", "selected"]
    mean = transfer.groupby(["arm", "language"])[columns].mean().to_dict("index")
    rows = []
    for arm in arms:
        if (arm, "all") in mean:
            overall = mean[arm, "all"]
            active = [mean[arm, code]["selected"] if (arm, code) in mean else None for code in forget]
            cells = [overall["explained_variance"], overall["l0"], overall["ce_delta"] / overall["ce"], *active]
            rows.append({"arm": arm, "colour": arm_colours(arms)[arm], "cells": [number(cell) for cell in cells]})
    header = ["Explained variance", "Active latents per token", "Rise of cross-entropy"]
    return {"header": [*header, *(f"Selected latents: {language_name(code)}" for code in forget)], "rows": rows}


def _words(name: str) -> str:
    return name.replace("_", " ")
