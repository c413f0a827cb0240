"""White-box audits: hidden states, memorised tokens, and how fast a model learns again."""

PROBE, RELEARN = "tofu_probe", "tofu_relearn"
MEMORIZATION, DEPTH = "tofu_memorization", "tofu_depth"

VERSIONS = {PROBE: 1.0, RELEARN: 1.0, MEMORIZATION: 1.0, DEPTH: 1.0}
"""Version of each audit; bump when results change for the same models. The report reads it without importing torch."""
