"""White-box audits: what a model's hidden states hold, and how fast it learns again."""

PROBE_VERSION = 4.0
RELEARN_VERSION = 2.0
"""Bump when results change for the same models. Here, and not in the modules, so that the report needs no torch."""
