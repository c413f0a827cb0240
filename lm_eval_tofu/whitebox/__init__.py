"""White-box audits: what a model's hidden states hold, and how fast it learns again."""
