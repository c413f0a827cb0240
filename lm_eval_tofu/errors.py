"""The errors that a user's input can cause. Each message is one line: the option, its value, and what to do."""


class TofuError(ValueError):
    """Base of every error that this package raises on purpose."""


class OptionError(TofuError):
    """An option has a value that cannot be used; raised before any model is loaded where that is possible."""


class DataError(TofuError):
    """The TOFU data cannot be found, read, or is not TOFU."""


class ReferenceRunError(TofuError):
    """A reference run (`retain_reference`, `full_reference`) is missing, or does not fit the present run."""


class PromptError(TofuError):
    """The tokenizer, its chat template and the options do not give a prompt that can be scored."""
