"""Training the models to audit: data -> loss -> trainer -> checkpoint.

`finetune` makes the base, full and retain arms. Modules here import torch when they train, not when they are imported
by the command line, whose `--help` must answer at once.
"""
