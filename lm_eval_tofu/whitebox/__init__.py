"""White-box audits: what a model's hidden states hold, and how fast it learns again."""

PROBE_VERSION = 3.0
RELEARN_VERSION = 1.0
"""They rise when the same models would get other figures. They stand here so that a report needs no torch for them."""
