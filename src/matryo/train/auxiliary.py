"""Losses that teach an encoder directly: what a picture shows, what a clip says.

In: soft embeddings of pictures and clips, as the decoder gets them; labels and transcripts of rows.
Out: losses with gradients. Pictures: cross-entropy over the labels of the training rows, from the
mean of a picture's embeddings. Sound: CTC over letters, of which every embedding gives four, one
for each frame of the encoder before it is thinned out; so what is said must be in what the decoder
sees. The heads are not part of the model: they end with the run.
Source: Graves et al., 2006 (CTC).

n pictures or clips · S soft ids of one · d model
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch.nn import functional

from matryo.train.features import FeatureRegression

LETTERS_A_TOKEN = 4
BLANK = 0


def spoken(text: str) -> str:
    """A transcript as letters, digits and single spaces: what can be heard of it."""
    folded = unicodedata.normalize("NFC", text).casefold()
    kept = "".join(letter if letter.isalnum() or letter == "'" else " " for letter in folded)
    return " ".join(kept.split())


class Auxiliary(torch.nn.Module):
    """Both heads; one without anything to learn does not exist."""

    def __init__(
        self,
        width: int,
        labels: Iterable[str],
        transcripts: Iterable[str],
        *,
        classes: float,
        ctc: float,
    ) -> None:
        """width: d · classes, ctc: weights of the losses, 0 = none."""
        super().__init__()
        self.labels = {label: n for n, label in enumerate(sorted(set(labels)))} if classes else {}
        letters = sorted({letter for text in transcripts for letter in spoken(text)}) if ctc else []
        self.letters = {letter: n for n, letter in enumerate(letters, BLANK + 1)}
        self.weights = {"classes": classes, "ctc": ctc}
        self.regression = FeatureRegression(width, 0, ())
        if self.labels:
            self.show = torch.nn.Linear(width, len(self.labels))
        if self.letters:
            self.say = torch.nn.Linear(width, LETTERS_A_TOKEN * (len(self.letters) + 1))

    def learn_features(
        self, width: int, teacher_width: int, kinds: tuple[str, ...], weight: float
    ) -> None:
        """Also a projection to a teacher's features for each kind of encoder."""
        self.regression = FeatureRegression(width, teacher_width, kinds)
        self.weights |= {f"{kind} features": weight for kind in kinds}

    def classes(self, soft: torch.Tensor, shown: Sequence[Sequence[str]]) -> torch.Tensor | None:
        """soft (n, S, d); the mean loss of those with labels that were trained on, None if there
        are none. The labels of one picture are equally likely.
        """
        known = self._known(shown)
        if not known:
            return None
        targets = soft.new_zeros(len(known), len(self.labels))
        for row, labels in enumerate(known.values()):
            targets[row, labels] = 1 / len(labels)
        scores = self.show(soft[list(known)].mean(1))
        return functional.cross_entropy(scores, targets, label_smoothing=0.1)

    def right(
        self, soft: torch.Tensor, shown: Sequence[Sequence[str]], among: Iterable[str]
    ) -> tuple[int, int]:
        """How many pictures are recognised, of how many with a known label: the likeliest label is
        one of theirs.

        among: the labels that are answers; those that the pictures to learn from have besides, the
        words of a caption beside its concept, are not
        """
        known = self._known(shown)
        if not known:
            return 0, 0
        scores = self.show(soft[list(known)].mean(1))
        answers = torch.full_like(scores[0], -torch.inf)
        answers[[self.labels[name] for name in among if name in self.labels]] = 0
        best = (scores + answers).argmax(-1).tolist()
        hits = [one in labels for one, labels in zip(best, known.values(), strict=True)]
        return sum(hits), len(hits)

    def _known(self, shown: Sequence[Sequence[str]]) -> dict[int, list[int]]:
        """The labels that were trained on, of the pictures that have some."""
        numbers = [[self.labels[name] for name in names if name in self.labels] for names in shown]
        return {place: labels for place, labels in enumerate(numbers) if labels}

    def ctc(
        self, soft: torch.Tensor, num_tokens: Sequence[int], said: Sequence[str | None]
    ) -> torch.Tensor | None:
        """soft (n, S, d), of which the first `num_tokens` are sound; the mean loss a letter."""
        known = self._heard(num_tokens, said)
        if not known:
            return None
        rows = torch.tensor(list(known), device=soft.device)
        scores = self.say(soft[rows]).float()
        n, length, _ = scores.shape
        scores = scores.reshape(n, length * LETTERS_A_TOKEN, len(self.letters) + 1)
        targets = torch.tensor(
            [c for letters in known.values() for c in letters], device=soft.device
        )
        return functional.ctc_loss(
            scores.log_softmax(-1).transpose(0, 1),
            targets,
            torch.tensor([LETTERS_A_TOKEN * num_tokens[number] for number in known]),
            torch.tensor([len(letters) for letters in known.values()]),
            blank=BLANK,
            reduction="sum",
        ) / len(targets)

    def _heard(self, num_tokens: Sequence[int], said: Sequence[str | None]) -> dict[int, list[int]]:
        """The letters of the clips that they fit into; what does not fit has no path."""
        found = {}
        for place, text in enumerate(said):
            letters = [self.letters[c] for c in spoken(text or "") if c in self.letters]
            repeats = sum(a == b for a, b in pairwise(letters))
            if letters and len(letters) + repeats <= LETTERS_A_TOKEN * num_tokens[place]:
                found[place] = letters
        return found

    def amounts(
        self,
        shown: Sequence[Sequence[str]],
        num_tokens: Sequence[int],
        said: Sequence[str | None],
    ) -> Counter[str]:
        """Of how many pictures, letters or soft ids each loss of a batch is the mean: its weight
        beside other batches.
        """
        return Counter(
            {
                "classes": len(self._known(shown)),
                "ctc": sum(map(len, self._heard(num_tokens, said).values())),
                "vision features": len(shown),  # every picture has as many soft ids
                "audio features": sum(num_tokens),
            }
        )
