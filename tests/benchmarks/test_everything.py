"""The whole measurement: steps, what is left out, what a failure leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.case import Options
from benchmarks.driver import Refused
from benchmarks.everything import STEPS, finished, run, selected
from benchmarks.step import Step

from benchmarks import everything, machine, record, suites

OPTIONS = Options(models="")


def saving(step: Step, options: Options, results: Path) -> None:
    record.save(step.suite, options, {}, [], results, step.name)


def test_steps_have_names_of_their_own_and_suites_that_exist() -> None:
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
    assert {step.suite for step in STEPS} == {
        *suites.NAMES,
        "agreement",
        "encoder_agreement",
    }


def test_a_step_of_this_commit_is_not_done_again(tmp_path: Path) -> None:
    steps = STEPS[:2]
    saving(steps[0], OPTIONS, tmp_path)
    assert finished(tmp_path, machine.commit()) == {steps[0].name}
    assert run(steps, OPTIONS, tmp_path, 0, again=False, do=saving) == {
        steps[0].name: "kept",
        steps[1].name: "measured",
    }
    assert set(run(steps, OPTIONS, tmp_path, 0, again=True, do=saving).values()) == {"measured"}


def test_results_of_another_commit_do_not_count(tmp_path: Path) -> None:
    saving(STEPS[0], OPTIONS, tmp_path)
    assert finished(tmp_path, "another") == set()


def test_a_step_that_would_end_too_late_is_not_begun(tmp_path: Path) -> None:
    short, long = Step("a", "load", (), (), 1, 10), Step("b", "load", (), (), 1, 1000)
    outcome = run([long, short], OPTIONS, tmp_path, 5, again=False, do=saving)
    assert outcome == {"b": "no time", "a": "measured"}


def test_a_failure_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "others_now", lambda: 0.0)

    def fail(step: Step, options: Options, results: Path) -> None:
        if step is STEPS[0]:
            raise Refused("not today")
        saving(step, options, results)

    outcome = run(STEPS[:2], OPTIONS, tmp_path, 0, again=False, do=fail)
    assert list(outcome.values()) == ["Refused: not today", "measured"]


def test_parts_divide_the_steps_and_unknown_names_are_refused() -> None:
    quiet, others = selected([], "quiet"), selected([], "any")
    assert sorted(step.name for step in [*quiet, *others]) == sorted(s.name for s in STEPS)
    assert {step.suite for step in others} == {"memory", "agreement", "encoder_agreement"}
    assert [step.name for step in selected(["elastic"], "all")] == ["elastic"]
    with pytest.raises(ValueError, match="no step nothing"):
        selected(["nothing"], "all")
