"""The generated page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmarks.agreement import compare
from benchmarks.picture import draw_ratios

from benchmarks import record, report

MACHINE = {
    "cpu": "Sample CPU",
    "flags": ["avx2"],
    "cpus": 2,
    "governor": "performance",
    "memory_bytes": 24_000_000_000,
    "system": "Linux",
    "versions": {"python": "3.11"},
    "commit": "abc123",
}


def repetition(number: int, contender: str, rate: float) -> dict[str, Any]:
    return {
        "round": number,
        "contender": contender,
        "result": {
            "seconds": 64 / rate,
            "tokens": 64,
            "resident_bytes": 1_500_000_000,
            "peak_bytes": 1_600_000_000,
            "details": {"needed_bytes": 1.2e9} if contender == "ours" else {},
        },
        "bandwidth_before": 30.0,
        "bandwidth_after": 30.0,
        "others": 0.01,
    }


def write(
    folder: Path, name: str, suite: str, time: str, cases: list[dict[str, Any]], **more: Any
) -> None:
    document = {
        "format": record.FORMAT,
        "suite": suite,
        "time": time,
        "machine": MACHINE,
        "threads": 2,
        "weights": "q4",
        "unavailable": {"openvino_genai": "no export"},
        "cases": cases,
    }
    (folder / name).write_text(json.dumps({**document, **more}))


def case(rate: float, title: str = "e2b decode 64 at 512") -> dict[str, Any]:
    measurements = [repetition(i, "ours", rate) for i in range(3)] + [
        repetition(i, "llama_cpp", 10.0) for i in range(3)
    ]
    return {
        "case": {},
        "title": title,
        "measurements": measurements,
        "dropped": {"transformers_cpu": "no memory"},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder, "b.json", "decode", "2026-01-02T00:00:00", [case(20.0)])
    write(
        folder,
        "a.json",
        "decode",
        "2026-01-01T00:00:00",
        [case(5.0), case(7.0, "e4b decode 64 at 512")],
    )
    write(
        folder,
        "c.json",
        "memory",
        "2026-01-01T00:00:00",
        [case(5.0, "e2b resident at context 2048")],
    )
    agreed = {
        "contender": "ours",
        "weights": "bf16",
        "top1": 1.0,
        "divergence": 1e-6,
        "largest": 1e-3,
        "reason": "",
    }
    write(
        folder,
        "d.json",
        "agreement",
        "2026-01-01T00:00:00",
        [{"size": "e2b", "agreement": [agreed]}],
    )
    return folder


def test_the_newest_record_of_each_case_is_shown(results: Path, tmp_path: Path) -> None:
    report.write(results, tmp_path / "page.md", tmp_path / "picture.svg")
    page = (tmp_path / "page.md").read_text()
    assert (
        "| e2b decode 64 at 512 | llama.cpp | 10.00 [10.00, 10.00] | 2.00x [2.00, 2.00] (2) |"
        in page
    )
    assert (
        "| e4b decode 64 at 512 | llama.cpp | 10.00 [10.00, 10.00] | 0.70x [0.70, 0.70] (2) |"
        in page
    )
    assert "0.50x" not in page
    assert "80% (2)" in page
    assert "in fast rounds" not in page


def test_an_interrupted_case_does_not_hide_an_older_one(results: Path) -> None:
    for name, measurements in (("y.json", []), ("z.json", [repetition(0, "ours", 1.0)])):
        empty = {**case(1.0), "measurements": measurements}
        write(results, name, "decode", "2026-01-03T00:00:00", [empty])
    (newest,) = [one for one in record.newest(results)["decode"] if one["title"].startswith("e2b")]
    assert newest["document"]["time"] == "2026-01-02T00:00:00"


def test_absent_contenders_are_named_with_their_reason(results: Path, tmp_path: Path) -> None:
    report.write(results, tmp_path / "page.md", tmp_path / "picture.svg")
    page = (tmp_path / "page.md").read_text()
    assert "- OpenVINO GenAI is not in the table: no export." in page
    assert "- transformers, e2b decode 64 at 512: no memory." in page


def test_agreement_and_machine_are_shown(results: Path, tmp_path: Path) -> None:
    report.write(results, tmp_path / "page.md", tmp_path / "picture.svg")
    page = (tmp_path / "page.md").read_text()
    assert "| e2b | Matryo | bf16 | 100.0% | 1e-06 | 0.001 |" in page
    assert "Sample CPU, 2 processors (avx2), 24 GB" in page


def test_the_picture_is_valid_and_has_a_bar_for_each_ratio(results: Path, tmp_path: Path) -> None:
    report.write(results, tmp_path / "page.md", tmp_path / "picture.svg")
    root = ElementTree.parse(tmp_path / "picture.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "e2b decode 64 at 512 / llama.cpp" in texts
    assert "2.00x" in texts
    assert "0.70x" in texts


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_ratios([], tmp_path / "picture.svg")


def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "old.json", "decode", "2026-01-01T00:00:00", [], format=0)
    with pytest.raises(ValueError, match=r"old\.json has format 0"):
        record.newest(tmp_path)


def test_equal_probabilities_agree_and_different_ones_do_not() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5, 300)) * 4
    reference = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    top1, divergence, _ = compare(reference, reference.astype(np.float32))
    assert top1 == 1.0
    assert divergence == pytest.approx(0.0, abs=1e-6)
    top1, divergence, largest = compare(reference, np.roll(reference, 1, axis=1).astype(np.float32))
    assert top1 < 0.5
    assert divergence > 1
    assert largest > 1
