"""The manifest of sources, unpacking, and what is made of transcripts and drawings."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scripts.nano.corpus import cldr, clips, pictures, prompts, rows, sources
from scripts.nano.corpus.stages import STAGES

SHIPPABLE = re.compile(
    r"Apache-2\.0|MIT|BSD-3-Clause|CC-BY-(SA-)?[34]\.0|CC0-1\.0|Unicode-3\.0|WordNet-3\.0|"
    r"public domain"
)


def test_manifest_names_what_it_must() -> None:
    for key, entry in sources.packages().items():
        assert entry["key"] == key
        assert entry["registry"] in ("apt", "npm", "pip")
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
        assert entry["version"] in entry["archive"].replace("%3a", ":")
        assert SHIPPABLE.match(entry["licence"]), key
        assert "GPL" not in entry["licence"]
        assert entry["attribution"]
        assert entry["files"]


def test_stages_use_every_source_of_the_manifest() -> None:
    used = {key for stage in STAGES.values() for key in stage.sources}
    assert used == set(sources.packages())


def test_unpacking_takes_what_the_manifest_names(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as file:
        for name in ("package/icons.json", "package/other.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            file.addfile(member, io.BytesIO(b"{}"))
    sources.unpack(archive, ["package/icons.json"], tmp_path / "out")
    found = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert [str(p.relative_to(tmp_path / "out")) for p in found] == ["package/icons.json"]
    wheel = tmp_path / "b.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("pkg/data/one.txt", "1")
        zipped.writestr("pkg/code.py", "")
    sources.unpack(wheel, ["pkg/data/*"], tmp_path / "wheel")
    assert [p.name for p in (tmp_path / "wheel").rglob("*.*")] == ["one.txt"]
    with pytest.raises(SystemExit, match="nothing in it fits nowhere"):
        sources.unpack(wheel, ["nowhere"], tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_another_archive_is_refused(tmp_path: Path) -> None:
    entry = {"name": "x", "version": "1", "archive": "x.tgz", "sha256": "0" * 64, "registry": "npm"}
    (tmp_path / "x.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"x\.tgz: SHA-256 is [0-9a-f]{64}, expected 0{64}"):
        sources.download(entry, tmp_path)


def test_transcripts_without_what_is_no_speech(tmp_path: Path) -> None:
    text = "; comment\nbeep: [a tone]\nvm-hello: Hello\u2019s there...\nbad: a ? b\n"
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert prompts.transcripts(path, "en") == {"vm-hello": "Hello's there"}


def test_numbers_of_transcripts_are_words() -> None:
    pytest.importorskip("num2words")  # a tool of the build, not of the package
    assert prompts.spelled("Premi 2", "it") == "Premi due"


def test_emoji_variants() -> None:
    assert cldr.is_toned("👋🏽")
    assert not cldr.is_toned("👋")
    assert cldr.is_flag("🇫🇷")
    assert not cldr.is_flag("🏁")
    assert cldr.plain("❤\ufe0f") == "❤"
    assert cldr.clean("visage\u202f: l\u2019œil") == "visage : l'œil"


def test_drawings_of_a_set() -> None:
    icons = {
        "icons": {"cat": {"body": "<path/>", "width": 20}}, "height": 32,
        "aliases": {"kitty": {"parent": "cat"}, "mirrored": {"parent": "cat", "hFlip": True}},
    }  # fmt: skip
    assert b'viewBox="0 0 20 32"' in (pictures.svg(icons, "kitty") or b"")
    assert pictures.svg(icons, "mirrored") is None
    assert pictures.svg(icons, "dog") is None


def test_backgrounds_vary_and_are_often_white() -> None:
    made = [pictures.background(rows.generator(f"picture {n}")) for n in range(200)]
    assert {picture.shape for picture in made} == {(pictures.SIDE, pictures.SIDE, 3)}
    white = sum(bool((picture == 255).all()) for picture in made)
    assert 50 < white < 110


def test_pictures_to_learn_from_are_transparent() -> None:
    pytest.importorskip("pyvips")  # a tool of the build, not of the package
    document = (
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="80" height="80">'
        b'<rect x="2" y="2" width="4" height="4" fill="#f00"/></svg>'
    )
    alone = pictures.draw(document, None)
    placed = pictures.draw(document, rows.generator("a pale one"))
    assert alone is not None and placed is not None
    assert alone.shape == (pictures.SIDE, pictures.SIDE, 4) and placed.shape[2] == 3
    middle = pictures.SIDE // 2
    assert alone[0, 0, 3] == 0 and (alone[middle, middle] == [255, 0, 0, 255]).all()
    assert (placed[middle, middle] == [255, 0, 0]).all()


def test_clips_lose_their_silence_and_have_one_loudness() -> None:
    sound = np.zeros(16_000, np.float32)
    sound[6000:9000] = 0.1 * np.sin(np.arange(3000) / 5)
    made = clips.trimmed(sound, 16_000)
    assert 3000 < len(made) <= 3000 + 2 * 1600
    assert np.abs(made).max() == pytest.approx(0.7, abs=1e-4)
    silent = np.zeros(100, np.float32)
    assert clips.trimmed(silent, 16_000) is silent


def test_clips_are_written_and_read(tmp_path: Path) -> None:
    sound = (0.5 * np.sin(np.arange(24_000) / 10)).astype(np.float32)
    path = tmp_path / "speech" / "a.ogg"
    clips.save(sound, 24_000, path)
    assert clips.seconds(path) == pytest.approx(1.0, abs=0.05)
    assert path.stat().st_size < 12_000
    assert [p.name for p in path.parent.iterdir()] == ["a.ogg"]
