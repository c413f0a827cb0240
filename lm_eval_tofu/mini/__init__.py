"""The embedded miniature data set: invented authors in the layout of TOFU."""
