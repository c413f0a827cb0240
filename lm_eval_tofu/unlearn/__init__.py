"""Training the models to audit: data -> loss -> trainer -> checkpoint.

`finetune` makes the base, full and retain arms, `unlearning` the unlearned one. Modules here import torch when they
train or declare the trainer's options, not when they are imported: what needs neither answers at once.
"""
