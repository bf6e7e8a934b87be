"""The chunked loss is the plain one, in value and gradients, whatever the chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from matryo.train import head
from matryo.train.head import IGNORED, Head, head_loss
from matryo.train.native import fused_operations

N, D, V = 23, 12, 37


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, V, (N,), generator=generator)
    labels[[2, 3, 11]] = IGNORED
    return {
        "hidden": torch.randn(N, D, generator=generator).requires_grad_(),
        "weight": (2 * torch.randn(V, D, generator=generator)).requires_grad_(),
        "teacher": torch.randn(N, D, generator=generator),
        "labels": labels,
    }


def plain(given: dict[str, Any], cap: float, ce: float, kl: float, heat: float) -> torch.Tensor:
    """The same with all logits at once and torch's own losses."""

    def logits(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        raw = hidden @ weight.T
        return cap * torch.tanh(raw / cap) if cap else raw

    ours = logits(given["hidden"], given["weight"])
    theirs = logits(given["teacher"], given["weight"].detach())
    kept = given["labels"] != IGNORED
    divergence = functional.kl_div(
        functional.log_softmax(ours[kept] / heat, -1),
        functional.log_softmax(theirs[kept] / heat, -1),
        log_target=True,
        reduction="batchmean",
    )
    cross_entropy = functional.cross_entropy(ours, given["labels"], ignore_index=IGNORED)
    return ce * cross_entropy + kl * heat**2 * divergence


@pytest.fixture(params=["native", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to go over the logits."""
    assert fused_operations() is not None
    if request.param == "plain":
        monkeypatch.setattr(head, "fused_operations", lambda: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rows", [1, 4, 5, 100])
@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize(("ce", "kl", "heat"), [(1.0, 0.0, 1.0), (0.3, 0.7, 2.0), (0.0, 1.0, 1.0)])
def test_equals_the_plain_loss(rows: int, cap: float, ce: float, kl: float, heat: float) -> None:
    ours, theirs = inputs(), inputs()
    got = head_loss(
        Head(ours["hidden"], ours["weight"], cap),
        ours["labels"],
        teacher=Head(ours["teacher"], ours["weight"], cap),
        cross_entropy=ce,
        divergence=kl,
        temperature=heat,
        logits=rows * V,
    )
    wanted = plain(theirs, cap, ce, kl, heat)
    (2.5 * got.loss).backward()
    (2.5 * wanted).backward()
    assert torch.allclose(got.loss, wanted, rtol=1e-5, atol=1e-6)
    assert torch.allclose(got.cross_entropy, plain(theirs, cap, 1.0, 0.0, heat), rtol=1e-5)
    for name in ("hidden", "weight"):
        got_grad, wanted_grad = ours[name].grad, theirs[name].grad
        assert got_grad is not None and wanted_grad is not None
        assert torch.allclose(got_grad, wanted_grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("taught", [False, True])
def test_what_is_no_number_stays_none(taught: bool) -> None:
    """Training stops at a loss that is no number; a row must not lose it on its way."""
    for place in ("hidden", "teacher") if taught else ("hidden",):
        given = inputs()
        with torch.no_grad():
            given[place][5, 3] = torch.nan
        teacher = Head(given["teacher"], given["weight"], 3.0) if taught else None
        student = Head(given["hidden"], given["weight"], 3.0)
        assert head_loss(student, given["labels"], teacher=teacher, divergence=1.0).loss.isnan()


def test_a_large_vocabulary_and_logits_far_apart() -> None:
    """Sums over many columns keep their precision, and nothing overflows."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 8, generator=generator).requires_grad_()
    weight = torch.randn(50_003, 8, generator=generator)
    weight[:7] *= 40
    weight.requires_grad_()
    labels = torch.tensor([0, 50_002, 17])
    got = head_loss(Head(hidden, weight, 0.0), labels)
    got.loss.backward()
    found, hidden.grad = hidden.grad, None
    wanted = functional.cross_entropy((hidden.double() @ weight.double().T), labels)
    wanted.backward()
    assert got.loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert found is not None and hidden.grad is not None
    # Entries are differences of larger numbers; float32 in another order is as far off.
    largest = hidden.grad.abs().max().item()
    assert torch.allclose(found, hidden.grad, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.usefixtures("way")
def test_logits_are_held_for_a_few_rows_only() -> None:
    """No tensor of N·V numbers is made, forward or backward."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(value, torch.Tensor):
                    largest = max(largest, value.numel())
            return out

    given = inputs()
    with Watch():  # type: ignore[no-untyped-call]
        student = Head(given["hidden"], given["weight"], 30.0)
        head_loss(student, given["labels"], logits=4 * V).loss.backward()
    assert largest <= max(4 * V, V * D, N * D) < N * V


def test_no_gradients_are_formed_where_none_are_wanted() -> None:
    given = inputs()
    with torch.no_grad():
        got = head_loss(Head(given["hidden"], given["weight"], 0.0), given["labels"])
    assert not got.loss.requires_grad and got.loss > 0


def test_without_labels_there_is_nothing_to_learn() -> None:
    given = inputs()
    labels = torch.full((N,), IGNORED)
    got = head_loss(Head(given["hidden"], given["weight"], 0.0), labels)
    got.loss.backward()
    assert got.loss == 0 and given["weight"].grad is not None and not given["weight"].grad.any()


def test_bfloat16_sums_in_float32() -> None:
    given = inputs()
    hidden = given["hidden"].detach().bfloat16().requires_grad_()
    weight = given["weight"].detach().bfloat16().requires_grad_()
    got = head_loss(Head(hidden, weight, 3.0), given["labels"], logits=V)
    wanted = head_loss(Head(given["hidden"], given["weight"], 3.0), given["labels"])
    got.loss.backward()
    assert got.loss.dtype == torch.float32
    assert got.loss.item() == pytest.approx(wanted.loss.item(), rel=0.02)
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16
