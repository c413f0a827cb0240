"""Fingerprints of weight files and of rows."""

import json
from pathlib import Path

from lm_eval_tofu import fingerprints


class TestWeights:
    """Small files whole, large ones in part; adapters count."""

    def write(self, folder: Path, content: bytes, name: str = "model.safetensors") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder

    def test_small_files_are_read_whole(self, tmp_path: Path) -> None:
        one, same, other = (
            fingerprints.weights_fingerprint(self.write(tmp_path / name, content))
            for name, content in (("a", b"x" * 999), ("b", b"x" * 999), ("c", b"x" * 998 + b"y"))
        )
        assert one == same != other
        assert one is not None
        assert one.startswith("files:")

    def test_large_files_are_read_in_part(self, tmp_path: Path) -> None:
        """20 MiB of zeros, then one byte in each 64 KiB changed, as training changes most weights."""
        content = bytearray(20 << 20)
        before = fingerprints.weights_fingerprint(self.write(tmp_path / "a", bytes(content)))
        content[0::5000] = b"\1" * len(content[0::5000])
        changed = fingerprints.weights_fingerprint(self.write(tmp_path / "b", bytes(content)))
        longer = fingerprints.weights_fingerprint(self.write(tmp_path / "c", bytes(20 << 20) + b"\0"))
        assert len({before, changed, longer}) == 3

    def test_all_shards_count(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, b"1", "model-00001-of-00002.safetensors")
        one = fingerprints.weights_fingerprint(folder)
        assert fingerprints.weights_fingerprint(self.write(folder, b"2", "model-00002-of-00002.safetensors")) != one

    def test_an_adapter_and_its_scale_count(self, tmp_path: Path) -> None:
        base, adapter = (
            self.write(tmp_path / "base", b"base"),
            self.write(tmp_path / "ad", b"lora", "adapter_model.safetensors"),
        )
        found = [fingerprints.weights_fingerprint(base)]
        for alpha, path in ((8, "base"), (16, "base"), (16, "/elsewhere/base")):
            settings = {"r": 8, "lora_alpha": alpha, "base_model_name_or_path": path}
            (adapter / "adapter_config.json").write_text(json.dumps(settings))
            found.append(fingerprints.weights_fingerprint(base, adapter=adapter))
        assert len(set(found[:3])) == 3
        assert found[3] == found[2]
        # A merged model beside the adapter that was merged is the merged model.
        assert fingerprints.weights_fingerprint(self.write(adapter, b"base")) == found[0]

    def test_one_file_of_several(self, tmp_path: Path) -> None:
        folder = self.write(self.write(tmp_path, b"1", "q4.gguf"), b"2", "q8.gguf")
        assert fingerprints.weights_fingerprint(folder, gguf_file="q4.gguf") != fingerprints.weights_fingerprint(
            folder, gguf_file="q8.gguf"
        )

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        assert fingerprints.weights_fingerprint(tmp_path) is None
        assert fingerprints.weights_fingerprint(tmp_path / "none") is None
        assert fingerprints.weights_fingerprint(self.write(tmp_path, b"1"), adapter=tmp_path / "none") is None


def test_rows_have_one_fingerprint_whatever_is_asked_of_them() -> None:
    rows = [{"set": "forget", "index": index, "question": f"q{index}", "answer": "a"} for index in range(3)]
    asked = [{**row, "family": family, "messages": [family]} for family in ("direct", "cloze") for row in rows[::-1]]
    columns = ("question", "answer")
    assert fingerprints.rows_fingerprint(rows, columns) == fingerprints.rows_fingerprint(asked, columns)
    assert fingerprints.rows_fingerprint(rows[:2], columns) != fingerprints.rows_fingerprint(rows, columns)
    assert fingerprints.rows_fingerprint(
        [{**rows[0], "answer": "b"}, *rows[1:]], columns
    ) != fingerprints.rows_fingerprint(rows, columns)
