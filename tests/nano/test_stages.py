"""The stages of the embedded model's training: recipes that hold, a shape that the engine takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from scripts.nano.shape import config, plans
from scripts.nano.stages import main, stages

from matryo.config import TextConfig
from matryo.plan import Plan
from matryo.speech.prompts import split_answer
from matryo.tower_config import TowerConfig
from matryo.train.recipe import Recipe

CLIP = {"type": "audio", "audio": "speech/a.ogg"}


def speech_row(task: str, answer: str, lang: str, **more: str) -> str:
    messages = [
        {"role": "user", "content": [CLIP, {"type": "text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return json.dumps({"messages": messages, "task": task, "lang": lang, "said": "Uno", **more})


def emoji_row(picture: str, concept: str, caption: str, lang: str = "en") -> str:
    question = [{"type": "image", "image": f"pics/{picture}.png"}, {"type": "text", "text": "x"}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": caption}]},
    ]
    return json.dumps({"messages": messages, "concept": concept, "lang": lang})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for split in ("train", "heldout"):
        (tmp_path / split).mkdir()
        for name in ("translate", "emoji"):
            (tmp_path / split / f"{name}.jsonl").write_text("{}\n")
    rows = [
        emoji_row("a", "1", "grinning face"),
        emoji_row("a", "1", "cara", "es"),
        emoji_row("b", "2", "Face of a cat"),
    ]
    (tmp_path / "train/emoji.jsonl").write_text("\n".join(rows))
    (tmp_path / "tokenizer").mkdir()
    return tmp_path


def test_the_build_stops_where_the_recipes_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(
        '#!/bin/sh\ncase "$*" in *scripts.nano.stages*) echo words; exit 3; esac\necho "ran $*"\n'
    )
    (tmp_path / "python").chmod(0o755)
    script = Path(__file__).parents[2] / "scripts/nano/build.sh"
    done = subprocess.run(
        ["sh", script, tmp_path, tmp_path], capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 3 and "matryo train" not in done.stdout
    assert "ran -m scripts.nano.corpus" in done.stdout


def test_the_shape_is_one_that_the_engine_runs() -> None:
    document = config()
    text, towers = TextConfig.from_json(document), TowerConfig.from_json(document)
    rungs = {name: Plan.from_json(value, text) for name, value in plans().items()}
    assert len(rungs) >= 4 and len(rungs["tiny"].layers) < text.num_layers
    assert all(rungs["large"].contains(plan) for plan in rungs.values())
    # Owners and readers of keys and values, of both kinds of attention.
    for layers in (range(text.num_owners), range(text.num_owners, text.num_layers)):
        assert {text.window[layer] > 0 for layer in layers} == {True, False}
    assert towers.vision is not None and towers.vision.ids.count == 16
    assert towers.audio is not None and towers.audio.frames_per_token == 16


def test_stages_start_from_each_other_and_wait_for_speech(cache: Path) -> None:
    output = cache / "out"
    output.mkdir()
    assert list(stages(cache, output)) == ["vision", "words"]
    rows = [
        speech_row("speech_translate", "One", "en", source="es"),
        speech_row("transcribe", "Uno", "es"),
    ]
    (cache / "train/espeak.jsonl").write_text("\n".join(rows))
    found = stages(cache, output, quick=True)
    assert list(found) == ["vision", "sound", "words"]
    seen = [json.loads(line) for line in (output / "seen.jsonl").read_text().splitlines()]
    assert [row["concept"] for row in seen] == [["1", "face"], ["2", "face"]]
    roles = [message["role"] for message in seen[0]["messages"]]
    assert roles == ["user", "assistant"] * 2  # one picture, two captions
    assert seen[0]["messages"][2]["content"] == [{"type": "text", "text": "x"}]
    heard = [json.loads(line) for line in (output / "heard_espeak.jsonl").read_text().splitlines()]
    assert len(heard) == 1 and len(heard[0]["messages"]) == 4
    (said,) = (output / "said_espeak.jsonl").read_text().splitlines()
    assert [one["content"][-1]["text"] for one in json.loads(said)["messages"]] == ["x", "Uno"]
    for name, recipe in found.items():
        read = Recipe.from_text(json.dumps(recipe), directory=cache)
        assert read.schedule.steps == 4 and read.output == output / name
    assert found["words"]["model"]["start"] == str(output / "sound/hf")
    asked = [json.loads(line) for line in (output / "asked.jsonl").read_text().splitlines()]
    assert [row["messages"][0]["content"][0]["type"] for row in asked] == ["text", "text"]
    assert split_answer(asked[0]["messages"][1]["content"], "en") == ("Uno", "One")
    assert split_answer(asked[1]["messages"][1]["content"], None) == ("Uno", None)


def test_pictures_without_captions_are_labelled_with_english_answers(cache: Path) -> None:
    rows = [
        emoji_row("s", "", "Circle"),
        emoji_row("s", "", "yes"),
        emoji_row("s", "", "cercle", "fr"),
        emoji_row("t", "", "no"),  # shows nothing that has a name
        emoji_row("u", "", "red"),
    ]
    (cache / "train/easy_vqa.jsonl").write_text("\n".join(rows))
    output = cache / "out"
    output.mkdir()
    mix = stages(cache, output)["vision"]["data"]["mix"]
    assert [Path(source["files"][0]).name for source in mix] == [
        "seen.jsonl",
        "seen_easy_vqa.jsonl",
    ]
    lines = (output / "seen_easy_vqa.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["concept"] for row in found] == [["circle"], ["red"]]
    assert [len(row["messages"]) for row in found] == [6, 2]
    assert found[1]["messages"][0]["content"][0]["image"].endswith("/u.png")


def test_a_recipe_that_is_there_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["stages", str(cache), str(cache / "out")])
    main()
    path = cache / "out" / "vision.yaml"
    path.write_text(path.read_text().replace('"steps": 7200', '"steps": 9'))
    main()
    assert Recipe.from_file(path).schedule.steps == 9
    assert json.loads((cache / "tokenizer/preprocessor_config.json").read_text())["size"]
