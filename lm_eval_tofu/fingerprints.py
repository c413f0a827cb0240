"""Fingerprints of what a run used: the model's weight files, the prompts' tokens, the rows.

Imports neither torch nor lm_eval: a report is made without them.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_WHOLE = 1 << 24
"""Files up to this many bytes are hashed whole."""
_SAMPLES, _SAMPLE_BYTES = 512, 4096
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "consolidated*.pth", "*.gguf")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_ADAPTER_SETTINGS = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def weights_fingerprint(folder: Path, *, gguf_file: str | None = None, adapter: Path | None = None) -> str | None:
    """Fingerprint of a model's files, in a fraction of a second for any size.

    Files of more than 16 MiB are read in part: the beginning, where safetensors state every tensor's name, type and
    shape, and 512 blocks of 4 KiB spread evenly over the rest. Training changes most blocks; a change of single weights
    between the blocks is not seen.

    Args:
        folder: Of the model.
        gguf_file: The file that the weights come from, where it is not all of them.
        adapter: Folder of an adapter that was loaded on top.

    Returns:
        `files:` and 16 hexadecimal digits; None where no weights are found or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        files = [folder / gguf_file] if gguf_file else _weight_files(folder)
        if adapter is not None:
            found = [adapter / name for name in _ADAPTER_FILES if (adapter / name).is_file()]
            if not found:
                return None
            files += found[:1]
            settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
            kept = {name: settings.get(name) for name in _ADAPTER_SETTINGS}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        for file in files:
            state = file.stat()
            digest.update(_file_digest(file.resolve(), state.st_size, state.st_mtime_ns))
    except (OSError, ValueError, AttributeError):
        return None
    return f"files:{digest.hexdigest()[:16]}" if files else None


def _weight_files(folder: Path) -> list[Path]:
    for pattern in _WEIGHT_FILES:
        # A folder of a merged model may still hold the adapter that was merged.
        files = sorted(file for file in folder.glob(pattern) if not file.name.startswith("adapter_"))
        if files:
            return files
    return []


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified: int) -> bytes:
    """Digest of one file; each task of a call asks for the same ones."""
    digest = hashlib.sha256(f"{size};".encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
            return digest.digest()
        digest.update(file.read(1 << 20))
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


def tokens_fingerprint(tokens: Iterable[str]) -> str:
    """Fingerprint of several documents' token digests, in the order given: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]


def rows_fingerprint(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Fingerprint of the rows that a task asks about, whatever number of prompts it makes of each."""
    seen = {(str(row.get("set")), int(row["index"])): [row.get(column) for column in columns] for row in rows}
    content = json.dumps(sorted((*key, value) for key, value in seen.items()), ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
