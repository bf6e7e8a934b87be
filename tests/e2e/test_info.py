"""`matryo info`: of a packed directory, of one that stays as it is, of what is neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.program import Terminal, invoke, matryo


def described(*arguments: str | Path, home: Path) -> dict[str, Any]:
    done = invoke("info", *arguments, "--json", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def tree(directory: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in directory.rglob("*"))


def test_a_packed_directory(home: Path, packed: Path) -> None:
    document = json.loads(matryo("info", packed, "--json", home=home).stdout)
    assert (document["form"], document["weights"], document["path"]) == (
        "packed",
        "f32",
        str(packed),
    )
    assert document["architecture"]["num_layers"] == 15
    assert {"small", "medium", "large", "e2b", "e4b", "full"} == set(document["plans"])
    for file in document["files"]:
        assert file["present"]
        assert file["bytes"] == (packed / file["name"]).stat().st_size
    rows = {row["name"]: row for row in document["ledger"]["rows"]}
    assert {file["name"] for file in document["files"]} <= set(rows)
    total = sum(row["resident_bytes"] for row in rows.values())
    assert total == pytest.approx(document["ledger"]["resident_bytes"], rel=0.2)


def test_a_hugging_face_directory_is_not_packed(home: Path, checkpoint: Path) -> None:
    before = tree(checkpoint)
    document = described(checkpoint, home=home)
    assert document["form"] == "hugging-face"
    assert set(document["plans"]) >= {"small", "large"}
    assert [file["name"] for file in document["files"]] == ["model.safetensors"]
    assert tree(checkpoint) == before
    assert not home.exists()


def test_both_forms_have_the_same_sizes(home: Path, packed: Path, checkpoint: Path) -> None:
    one, other = described(packed, home=home), described(checkpoint, "--weights", "f32", home=home)
    for name, size in one["plans"].items():
        # Vectors and padding are counted where they are stored; of this model they are a good part.
        theirs = other["plans"][name]
        assert theirs.pop("bytes_per_token") == pytest.approx(size.pop("bytes_per_token"), rel=0.5)
        assert size == theirs
    assert one["architecture"] == other["architecture"]


def test_fewer_bits_are_fewer_bytes(home: Path, checkpoint: Path) -> None:
    counts = [
        described(checkpoint, "--weights", kind, home=home)["plans"]["large"]["bytes_per_token"]
        for kind in ("q4", "q8", "bf16", "f32")
    ]
    assert counts == sorted(set(counts))


def test_one_size_alone_may_come_from_a_file(home: Path, packed: Path, tmp_path: Path) -> None:
    plan = tmp_path / "mine.json"
    plan.write_text('{"ffn_width": 64}', encoding="utf-8")
    document = described(packed, "--size", plan, home=home)
    (size,) = document["plans"].values()
    assert size["plan"]["ffn_width"] == [64] * 15


def test_a_missing_outer_shell_is_named(home: Path, packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "inner"
    shutil.copytree(packed, copy)
    outer = sorted(copy.glob("shell-*.safetensors"))[-1]
    outer.unlink()
    document = described(copy, home=home)
    assert document["plans"]["large"]["missing_file"] == outer.name
    assert document["plans"]["small"]["missing_file"] is None
    assert "missing: what" in invoke("info", copy, home=home, COLUMNS="200").stdout
    refused = invoke("run", "-m", copy, "x", "--size", "large", home=home)
    assert refused.returncode == 1
    assert "missing" in refused.stderr


def test_verify_finds_one_changed_byte(home: Path, packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(packed, copy)
    assert described(copy, "--verify", home=home)["verified"] is True
    shell = copy / "shell-0.safetensors"
    data = bytearray(shell.read_bytes())
    data[-100] ^= 1
    shell.write_bytes(data)
    done = invoke("info", copy, "--verify", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {shell}: damaged")


def test_only_packed_directories_can_be_verified(home: Path, checkpoint: Path) -> None:
    done = invoke("info", checkpoint, "--verify", home=home)
    assert done.returncode == 1
    assert "only a packed directory" in done.stderr


@pytest.mark.parametrize("columns", ["40", "60", "80", "200"])
def test_tables_fit_the_terminal(home: Path, packed: Path, columns: str) -> None:
    done = invoke("info", packed, home=home, COLUMNS=columns)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert max(len(line) for line in lines[2:]) <= int(columns)
    assert "counted from shapes" in done.stdout.replace("\n", " ")


def test_a_terminal_has_colour_unless_it_is_not_wanted(home: Path, packed: Path) -> None:
    with Terminal("info", packed, home=home) as terminal:
        assert terminal.wait() == 0
    assert "\x1b[1m" in terminal.screen
    with Terminal("info", packed, home=home, NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    assert "\x1b[3" not in terminal.screen


@pytest.mark.parametrize("name", ["no/such/place", "empty", "file", "other"])
def test_what_is_no_checkpoint_is_one_error(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    done = invoke("info", tmp_path / name, home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "unexpected" not in done.stderr
