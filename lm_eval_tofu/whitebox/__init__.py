"""White-box audits: what a model's hidden states hold, and how fast it learns again."""

PROBE, RELEARN = "tofu_probe", "tofu_relearn"

VERSIONS = {PROBE: 4.0, RELEARN: 2.0}
"""Version of each audit; bump when results change for the same models. The report reads it without importing torch."""
