"""The model class of lm-evaluation-harness, on a local task. lm-eval is truly optional: it brings
scikit-learn and more, so it is not among the packages of the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.readable import make_readable
from matryo.errors import ConfigError, InputError
from matryo.evaluate import harness

TASKS = {
    "local_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
""",
    "local_answer": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["b"], max_gen_toks: 5}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    return make_readable(tiny_checkpoint, tmp_path_factory.mktemp("harness") / "tiny")


@pytest.fixture(scope="module")
def lm(checkpoint: Path) -> Any:
    pytest.importorskip("lm_eval")
    from matryo.evaluate.harness_model import MatryoLM

    return MatryoLM.create_from_arg_string(
        f"path={checkpoint},size=small,weights=f32,kv=f32", {"batch_size": 1, "device": None}
    )


def test_log_likelihoods_are_those_of_the_logits(lm: Any) -> None:
    pairs = [("a b", " the"), ("a b", " e a"), ("", "a e"), ("the ", "b")]
    found = lm.loglikelihood([SimpleNamespace(args=pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (logprob, greedy) in zip(pairs, found, strict=True):
        ids = lm.model.tokenizer.encode(context + continuation, bos=True)
        start = len(lm.model.tokenizer.encode(context.rstrip(), bos=True))
        logits = lm.model.logits(ids, "small").astype(np.float64)[start - 1 : -1]
        chances = logits - np.log(np.exp(logits).sum(axis=1))[:, None]
        wanted = ids[start:]
        assert logprob == pytest.approx(chances[np.arange(len(wanted)), wanted].sum(), rel=1e-5)
        assert greedy == (logits.argmax(axis=1).tolist() == wanted)


def test_a_context_that_is_too_long_loses_its_beginning(lm: Any) -> None:
    long, end = [5] * (lm.max_length + 40), [7, 9]
    cut = long[-(lm.max_length - 1) :]
    first, second = lm._loglikelihood_tokens([(None, long, end), (None, cut, end)])
    assert first == second


def test_answers_end_where_the_task_says(lm: Any) -> None:
    def answer(**options: Any) -> str:
        request = SimpleNamespace(args=("a b the", options))
        return str(lm.generate_until([request])[0])

    whole = answer(max_gen_toks=12)
    assert whole and answer(max_gen_toks=12, do_sample=False, temperature=0) == whole
    assert answer(max_gen_toks=12, until=[whole[3:6]]) == whole[: whole.index(whole[3:6])]
    drawn = answer(max_gen_toks=12, do_sample=True, temperature=2.0, seed=1)
    assert drawn == answer(max_gen_toks=12, do_sample=True, temperature=2.0, seed=1) != whole
    with pytest.raises(InputError, match="'beams' is unknown"):
        answer(beams=4)
    with pytest.raises(InputError, match="leave no room"):
        answer(max_gen_toks=10**6)


def test_unknown_arguments_are_refused(checkpoint: Path, lm: Any) -> None:
    with pytest.raises(ConfigError, match="'pth' is unknown"):
        type(lm)(pth=str(checkpoint))


def test_the_harness_runs_local_tasks(lm: Any, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    rows = [{"question": "a b", "choices": ["the", "e"], "answer": n % 2} for n in range(4)]
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ntest_split: test\n"
            f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.json'}}}}}\n{text}"
        )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = simple_evaluate(
        lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, cache_requests=False
    )
    results = found["results"]
    assert results["local_choice"]["acc,none"] == 0.5  # one of the two is always preferred
    assert results["local_text"]["bits_per_byte,none"] > 0
    assert results["local_answer"]["exact_match,none"] == 0.0


def test_the_package_is_named_if_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    assert harness.main() == 1
    assert "pip install 'matryo[eval]'" in capsys.readouterr().err
