"""Sessions with pictures and sound: what is kept, what is computed again, what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.media import sound_file, video_file
from helpers.media_text import IMAGE_SIDE
from helpers.towers import IDS
from matryo.errors import CapacityError, CheckpointError, InputError
from matryo.media.encode import MediaEncoder
from matryo.media.library import MediaLibrary
from matryo.media.parts import MediaPart
from matryo.session import Session

SOFT_IMAGE, SOFT_AUDIO = IDS["image_token_id"], IDS["audio_token_id"]


@pytest.fixture(scope="module")
def shared(multimodal_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(multimodal_checkpoint, weights="f32") as model:
        yield model


@pytest.fixture
def model(shared: matryo.Model) -> matryo.Model:
    """With nothing in the cache of encoded media."""
    shared._library.clear()
    return shared


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tower of everything that is encoded, in order."""
    calls: list[str] = []
    original = MediaEncoder.soft

    def soft(self: MediaEncoder, tower: str, data: Any, cancel: Any = None) -> Any:
        calls.append(tower)
        return original(self, tower, data, cancel)

    monkeypatch.setattr(MediaEncoder, "soft", soft)
    return calls


def picture(rng: np.random.Generator) -> Any:
    return rng.integers(0, 256, (30, 50, 3)).astype(np.uint8)


def sound(rng: np.random.Generator, samples: int = 9000) -> Any:
    return (0.1 * rng.standard_normal(samples)).astype(np.float32)


def tokens(session: Session, prompt: Any = None, count: int = 4, **options: Any) -> list[int]:
    events = session.generate(prompt, max_tokens=count, sampling=matryo.GREEDY, **options)
    return [event.token for event in events if event.kind == "token" and event.token is not None]


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [
        {"type": "text", "text": item} if isinstance(item, str) else item for item in content
    ]}  # fmt: skip


def image_item(image: Any) -> dict[str, Any]:
    return {"type": "image", "image": image}


def test_two_pictures_with_equal_ids_are_two_conversations(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    first, second = ([user("the", image_item(picture(rng)), "a")] for _ in range(2))
    session, fresh = model.session(), model.session()
    answer = tokens(session, first)
    ids = session.ids[: -len(answer)]
    events = list(session.generate(second, max_tokens=4, sampling=matryo.GREEDY))
    assert session.ids[: len(ids)] == ids  # nothing in the ids tells them apart
    assert events[-1].stats.cached_tokens == ids.index(SOFT_IMAGE)
    assert [event.token for event in events[:-1]] == tokens(fresh, second) != answer


def test_the_same_picture_in_a_later_turn_costs_nothing(
    model: matryo.Model, rng: np.random.Generator, encoded: list[str]
) -> None:
    image, clip = picture(rng), sound(rng)
    turn = user("the", image_item(image), {"type": "audio", "audio": clip})
    session = model.session()
    tokens(session, [turn])
    assert encoded == ["vision", "audio"]
    answer = {"role": "assistant", "content": "a"}
    longer = [turn, answer, user("b", image_item(image.copy()))]
    events = list(session.generate(longer, max_tokens=2, sampling=matryo.GREEDY))
    assert events[-1].stats.cached_tokens > 16 + 12
    tokens(model.session(), [turn])
    assert encoded == ["vision", "audio"]  # by content, in every session


def test_what_was_encoded_is_kept_within_a_bound(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    each = 16 * model.config.hidden_size * 4
    library = MediaLibrary(model._library.encoder, image_size=IMAGE_SIDE, max_bytes=2 * each)
    parts = [library.reader().raw(picture(rng), "here")[0] for _ in range(3)]
    for part in (parts[0], parts[1], parts[0], parts[2]):
        library.soft(part)
    assert [library.find(part) is not None for part in parts] == [True, False, True]
    assert library.num_bytes == 2 * each
    assert np.array_equal(library.soft(parts[1]), model._library.soft(parts[1]))


def test_a_trimmed_picture_stays_where_it_was(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    image = picture(rng)
    session = model.session(kv="f32")
    session.prefill(["the a", image, "b"])
    start = session.ids.index(SOFT_IMAGE)
    whole = model._library.find(session._placed[0].part)
    assert whole is not None
    session.trim(start + 5)
    session.prefill([77, 78, 79])
    embeddings = matryo.Embeddings(np.arange(start, start + 5, dtype=np.int32), whole[:5].copy())
    want = model.logits(session.ids, embeddings=embeddings, positions="last", kv="f32")
    order = np.argsort(-want[0])
    assert tokens(session, count=1) == [int(order[(order != 0) & (order < 512)][0])]


def test_trimming_before_a_picture_forgets_it(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    session = model.session()
    session.prefill(["the a", picture(rng)])
    session.trim(session.ids.index(SOFT_IMAGE))
    assert session._placed == []
    text_only = model.session()
    text_only.prefill(session.ids)
    assert tokens(session, [77]) == tokens(text_only, [77])


def test_a_fork_goes_its_own_way(model: matryo.Model, rng: np.random.Generator) -> None:
    session = model.session()
    session.prefill(["the", picture(rng)])
    fork = session.fork()
    assert tokens(fork, ["a", other := picture(rng)]) == tokens(session.fork(), ["a", other])
    assert tokens(session.fork(), "a") == tokens(session, "a")


def test_another_plan_computes_from_what_was_encoded(
    model: matryo.Model, rng: np.random.Generator, encoded: list[str]
) -> None:
    session = model.session("full")
    tokens(session, ["the", picture(rng)])
    session.plan = "e2b"
    session.reanchor()
    assert len(tokens(session)) == 4
    assert encoded == ["vision"]


def test_a_restored_session_goes_on(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path
) -> None:
    session = model.session()
    tokens(session, ["the", picture(rng), sound(rng)])
    session.save(tmp_path / "saved")
    expected = tokens(session, "a")
    model._library.clear()
    restored = model.restore(tmp_path / "saved")
    assert tokens(restored, "a") == expected
    restored.reanchor()
    model._library.clear()
    with pytest.raises(InputError, match="give the whole conversation again"):
        tokens(restored)


def test_a_session_saved_before_its_picture_was_computed(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path
) -> None:
    cancel = threading.Event()
    cancel.set()
    session = model.session()
    events = list(session.generate(["the", picture(rng)], cancel=cancel))
    assert events[-1].finish_reason == "cancelled" and session.num_cached == 0
    session.save(tmp_path / "saved")
    model._library.clear()
    back = model.restore(tmp_path / "saved")
    restored = tokens(back)
    assert model._library.num_bytes == 0  # a file's embeddings serve its own session only
    assert restored == tokens(session)
    ours, theirs = (one._sequence.cache.export() for one in (back, session))
    assert all(np.array_equal(page, theirs[name]) for name, page in ours.items())


@pytest.mark.parametrize(
    "change",
    [
        {"media": [[0, 16, "vision", 16, "0" * 64]]},  # no soft ids there
        {"media": [[-1, 16, "vision", 16, "0" * 64]]},
        {"media": [["a", 16, "vision", 16, "0" * 64]]},
        {"media": [[4, 16, "vision"]]},
        {"media": [[4, 16, "taste", 16, "0" * 64]]},
        {"media": [[4, 16, "vision", 16, "../x"]]},
        {"media": 3},
    ],
)
def test_a_session_file_with_wrong_media_is_refused(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path, change: dict[str, Any]
) -> None:
    from matryo.session.file import read_session, write_session

    session = model.session()
    tokens(session, ["the", picture(rng)])
    session.save(tmp_path / "saved")
    file = read_session(tmp_path / "saved")
    write_session(tmp_path / "changed", {**file.values, **change}, file.arrays)
    with pytest.raises(CheckpointError, match="changed"):
        model.restore(tmp_path / "changed")
    arrays = {**file.arrays, "media.0": np.full((16, 3), 1.0, np.float32)}
    write_session(tmp_path / "changed", file.values, arrays)
    with pytest.raises(CheckpointError, match="expected float32"):
        model.restore(tmp_path / "changed")


class _After:
    """Says stop from the given question on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("questions", [0, 1, 20])
def test_cancelled_inside_an_encoder(
    model: matryo.Model, rng: np.random.Generator, questions: int
) -> None:
    prompt = ["the", picture(rng), sound(rng)]
    session = model.session()
    cancel = _After(questions)
    events = list(session.generate(prompt, cancel=cancel))
    assert [event.kind for event in events] == ["done"]
    assert events[0].finish_reason == "cancelled"
    assert cancel.left == -1  # it stopped at that very question
    assert tokens(session) == tokens(model.session(), prompt)


def test_prefill_can_be_cancelled_too(model: matryo.Model, rng: np.random.Generator) -> None:
    session, prompt = model.session(), ["the", picture(rng)]
    with pytest.raises(matryo.errors.CancelledError):
        session.prefill(prompt, cancel=_After(3))
    assert session.num_cached == 0
    assert tokens(session) == tokens(model.session(), prompt)


def test_long_sound_becomes_clips(model: matryo.Model, rng: np.random.Generator) -> None:
    """The tiny model's clips have 12 tokens of 160 ms: 30,720 samples."""
    session = model.session()
    session.prefill([sound(rng, 2 * 30_720 + 5000), "a"])
    assert session.ids.count(SOFT_AUDIO) == 36
    assert session.ids.count(IDS["boa_token_id"]) == 3
    short = model.session()
    short.prefill([sound(rng, 30_720 + 500), "a"])  # the rest is shorter than one frame
    assert short.ids.count(SOFT_AUDIO) == 12


def test_sound_that_a_stream_encoded_takes_as_many_ids_as_it_has_tokens(
    model: matryo.Model, rng: np.random.Generator, encoded: list[str]
) -> None:
    stream, samples = model.audio.stream(), sound(rng, 50_000)
    pieces = [stream.push(piece) for piece in np.array_split(samples, 7)]
    streamed = matryo.SoundTokens(np.concatenate([*pieces, stream.finish()]))
    count = len(streamed.values)
    assert count > 12  # more than a clip has
    session = model.session(kv="f32")
    answer = tokens(session, ["the", streamed, "a"])
    assert session.ids.count(SOFT_AUDIO) == count and encoded == ["audio"]
    item = {"type": "audio", "audio": matryo.SoundTokens(streamed.values.copy())}
    assert tokens(model.session(kv="f32"), ["the", item, "a"]) == answer
    ids = session.ids[: -len(answer)]
    logits = model.logits(ids, audio=[streamed], positions="last", kv="f32")[0]
    order = np.argsort(-logits)
    assert answer[0] == int(order[(order != 0) & (order < 512)][0])
    whole = matryo.SoundTokens(model.audio.encode(samples))
    assert np.array_equal(whole.values, streamed.values)


@pytest.mark.parametrize("values", [np.zeros((0, 64)), np.zeros(64), None, [[1.0]]])
def test_what_is_no_array_of_tokens(values: Any) -> None:
    with pytest.raises(InputError, match="sound tokens: expected an array"):
        matryo.SoundTokens(values)


def test_a_video_is_its_frames_and_its_sound(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path, encoded: list[str]
) -> None:
    frames = [np.full((48, 64, 3), 8 * n, np.uint8) for n in range(30)]  # 3 s
    track = (0.1 * rng.standard_normal((1, 16_000))).astype(np.float32)
    path = tmp_path / "a.mp4"
    path.write_bytes(video_file(frames, sound=track))
    session = model.session()
    session.prefill(["the", path, "a"])
    assert session.ids.count(SOFT_IMAGE) == 3 * 16 and session.ids.count(SOFT_AUDIO) == 12
    assert encoded == ["vision"] * 3 + ["audio"]
    item = {"type": "video", "video": path, "rate": 2.0, "max_frames": 2, "sound": False}
    silent = model.session()
    silent.prefill([user("the", item)])
    assert silent.ids.count(SOFT_IMAGE) == 2 * 16 and SOFT_AUDIO not in silent.ids
    for wrong in ({"rate": "fast"}, {"rate": 0.0}, {"max_frames": 0}, {"size": 0}):
        with pytest.raises(InputError, match="message 0, item 1"):
            silent.generate([user("the", {**item, **wrong})])


def test_sound_files_are_told_from_videos(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path
) -> None:
    for container, codec in (("wav", "pcm_s16le"), ("ogg", "flac")):
        path = tmp_path / "sound"  # the name says nothing
        path.write_bytes(sound_file(sound(rng)[None], 16_000, container, codec))
        session = model.session()
        session.prefill(["a", path])
        assert session.ids.count(SOFT_AUDIO) == 12


def test_a_size_of_pictures_may_be_chosen(
    model: matryo.Model, rng: np.random.Generator, encoded: list[str]
) -> None:
    image = picture(rng)
    for size in (None, IMAGE_SIDE, 128):
        item = image_item(image) if size is None else {**image_item(image), "size": size}
        tokens(model.session(), ["a", item])
    assert encoded == ["vision", "vision"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([user({"type": "image"})], "message 0, item 0: expected an item of type image with one"),
        ([user({"type": "smell", "smell": 1})], "expected an item of type image, audio or video"),
        ([user({"type": "image", "image": "nowhere.png"})], "message 0, item 0: nowhere.png"),
        ([user({"type": "image", "image": b"GIF89a"})], "message 0, item 0: bytes"),
        ([user({"type": "image", "image": b"x" * 99})], "expected a picture"),
        ([user({"type": "image", "image": np.zeros((3, 3), np.int64)})], "uint8"),
        ([user({"type": "image", "path": "a", "url": "b"})], "with one source"),
        ([user({"type": "image", "image": "http://a/b.png"})], "reading from the network is off"),
        ([user({"type": "image", "image": np.zeros((3, 3, 3)), "size": "big"})], "size: expected"),
        ([user({"type": "audio", "audio": np.zeros(9)})], "at least 32 ms of sound, got 9"),
        ([user({"type": "audio", "audio": np.full(9000, np.nan)})], "finite"),
        ([user({"type": "audio", "audio": np.zeros(900), "colour": 1})], "got the keys"),
        (
            [user("<image_soft_token>", {"type": "image", "image": np.zeros((9, 9, 3))})],
            "1 pictures",
        ),
        (["a", np.zeros((9, 9, 3)), "<audio_soft_token>"], "1 pictures and 1 clips"),
        (["a", matryo.SoundTokens(np.zeros((3, 63), np.float32))], "finite float32 .n, 64."),
        (["a", matryo.SoundTokens(np.full((3, 64), np.nan, np.float32))], "finite float32"),
        (["a", 3.5], "part 1 of the prompt: expected a text"),
        (["a", {"type": "text", "text": 3}], "expected a text item"),
        ([{"type": "image"}, "a"], "part 0 of the prompt: expected an item of type image"),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    model: matryo.Model, prompt: Any, message: str
) -> None:
    session = model.session()
    session.prefill("the a")
    before = session.ids, session.num_cached
    with pytest.raises(InputError, match=message):
        session.generate(prompt)
    assert (session.ids, session.num_cached) == before


def test_more_pictures_than_the_context_holds(
    model: matryo.Model, rng: np.random.Generator, encoded: list[str]
) -> None:
    session = model.session()
    with pytest.raises(CapacityError):
        session.generate([picture(rng)] * 14)
    assert encoded == [] and len(session) == 0


def test_a_file_that_changed_is_not_used_again(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path
) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(picture(rng)).save(path)
    session = model.session()
    tokens(session, ["the", path])
    Image.fromarray(picture(rng)).save(path)
    session.reanchor()
    tokens(session)  # what was encoded is still known
    model._library.clear()
    session.reanchor()
    with pytest.raises(InputError, match="changed since it was given"):
        tokens(session)


def test_a_text_only_model_refuses_pictures_at_once(tiny_checkpoint: Path) -> None:
    with matryo.load(tiny_checkpoint) as text_only:
        session = text_only.session()
        with pytest.raises(InputError, match="this checkpoint has no encoder of pictures"):
            session.generate(["a", np.zeros((9, 9, 3), np.uint8)])
        with pytest.raises(InputError, match="this checkpoint has no encoder of sound"):
            text_only.logits([1, 2], audio=[np.zeros(9000, np.float32)])
        with pytest.raises(InputError, match="this checkpoint has no encoder of pictures"):
            _ = text_only.vision


def test_sessions_of_several_threads_share_what_was_encoded(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    prompt = ["the", picture(rng)]
    expected = tokens(model.session(), prompt)
    found: list[list[int]] = []

    def run() -> None:
        found.append(tokens(model.session(), prompt))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_a_part_says_what_it_is() -> None:
    assert "vision" in repr(MediaPart("vision", "0" * 64, 16, None))


def test_a_known_picture_is_not_decoded_again(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    image, reader = picture(rng), model._library.reader()
    assert reader.raw(image, "here")[0]._data is not None
    tokens(model.session(), ["a", image])
    assert reader.raw(image, "here")[0]._data is None
