"""Trains the models to audit: data -> loss -> trainer -> checkpoint.

`finetune` makes the base, full and retain arms, `unlearning` the unlearned one; `sweep` makes many of those, and
`select` ranks them. Modules here import torch when they train or declare the trainer's options, not when they are
imported. A value that cannot be used is an `OptionError`; docstrings name what else is raised.
"""
