"""Names of the ways to choose the forget language's latents; their definitions are in `mmie.features`."""

SELECTORS = ("contrast", "semantic", "per_script", "fisher", "grad")
