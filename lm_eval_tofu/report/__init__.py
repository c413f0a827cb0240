"""The report that sets the arms side by side, and a checkpoint's model card. Nothing here imports torch."""
