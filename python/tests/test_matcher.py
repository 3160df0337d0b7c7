"""The matcher against SciPy's optimum, and against its rules written down once more in NumPy."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import ultramotion
from ultramotion import HungarianMatcher, Tensor

WEIGHTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0}
TAKEN_COST = 1e6

Outputs = dict[str, Any]
Targets = list[dict[str, Any]]


def corners(boxes: np.ndarray) -> np.ndarray:
    half = 0.5 * np.maximum(boxes[:, 2:], 0)
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def giou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = corners(a)[:, None], corners(b)[None]

    def area(box: np.ndarray) -> np.ndarray:
        return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])

    inner = np.prod(np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0), -1)
    hull = np.prod(np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2]), -1)
    union = area(a) + area(b) - inner
    return inner / union - (hull - union) / hull


def costs(matcher: HungarianMatcher, outputs: Outputs, targets: Targets, image: int) -> np.ndarray:
    """[Q, T] in float64, from the definition."""
    logits = np.asarray(outputs["pred_logits"][image], np.float64)
    boxes = np.asarray(outputs["pred_boxes"][image], np.float64)
    labels = np.asarray(targets[image]["labels"])
    target_boxes = np.asarray(targets[image]["boxes"], np.float64)
    with np.errstate(all="ignore"):
        if matcher.use_focal_loss:
            p = 1 / (1 + np.exp(-logits[:, labels]))
            positive = matcher.alpha * (1 - p) ** matcher.gamma * -np.log(p + 1e-8)
            negative = (1 - matcher.alpha) * p**matcher.gamma * -np.log(1 - p + 1e-8)
            class_cost = positive - negative
        else:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            class_cost = -(powers / powers.sum(axis=1, keepdims=True))[:, labels]
        l1 = np.abs(boxes[:, None] - target_boxes[None]).sum(-1)
        cost = matcher.cost_bbox * l1 + matcher.cost_class * class_cost - matcher.cost_giou * giou(boxes, target_boxes)
    cost = np.where(np.isnan(cost), 1.0, cost)
    return np.where(np.isinf(cost), np.copysign(TAKEN_COST, cost), cost)


def greedy(cost: np.ndarray) -> list[tuple[int, int]]:
    """The cheapest pair of all, then the cheapest of what is left, and so on."""
    cost = cost.copy()
    pairs = []
    for _ in range(min(cost.shape)):
        i, j = np.unravel_index(np.argmin(cost), cost.shape)
        pairs.append((int(i), int(j)))
        cost[i, :] = cost[:, j] = np.inf
    return sorted(pairs)


def random_batch(rng: np.random.Generator, *, nans: bool = False) -> tuple[Outputs, Targets]:
    images, queries, classes = rng.integers(1, 5), rng.integers(1, 30), rng.integers(1, 6)
    outputs = {
        "pred_logits": rng.normal(0, 3, (images, queries, classes)).astype(np.float32),
        "pred_boxes": rng.uniform(0.05, 0.9, (images, queries, 4)).astype(np.float32),
    }
    if nans:
        outputs["pred_boxes"][rng.integers(images), rng.integers(queries), rng.integers(4)] = np.nan
        outputs["pred_logits"][rng.integers(images), rng.integers(queries), rng.integers(classes)] = np.nan
    targets = []
    for _ in range(images):
        # Some images have none, wherever they are in the batch; some have more than there are queries.
        count = int(rng.choice([0, 1, 3, 8, 35]))
        targets.append(
            {
                "labels": rng.integers(0, classes, count),
                "boxes": rng.uniform(0.05, 0.9, (count, 4)).astype(np.float32),
                "image_id": np.array([7]),
            }
        )
    return outputs, targets


def pairs_of(indices: tuple[Any, Any]) -> list[tuple[int, int]]:
    i, j = (np.asarray(part) for part in indices)
    assert i.dtype == j.dtype == np.int64
    return list(zip(i.tolist(), j.tolist(), strict=True))


def total(cost: np.ndarray, pairs: Sequence[tuple[int, int]]) -> float:
    return float(sum(cost[i, j] for i, j in pairs))


def is_unique(cost: np.ndarray, pairs: Sequence[tuple[int, int]], optimum: float) -> bool:
    """Whether every other set of pairs costs more by a margin that float32 can tell."""
    margin = 1e-4 * max(1.0, np.abs(cost).max(initial=0))
    for i, j in pairs:
        without = cost.copy()
        without[i, j] = cost.max() * 2 + 100
        if without[linear_sum_assignment(without)].sum() < optimum + margin:
            return False
    return True


@pytest.mark.parametrize("focal", [False, True])
def test_exact_is_scipys_optimum(focal: bool) -> None:
    matcher = HungarianMatcher(WEIGHTS, use_focal_loss=focal)
    rng = np.random.default_rng(int(focal))
    compared = 0
    for batch in range(500):
        outputs, targets = random_batch(rng, nans=batch % 5 == 0)
        found = matcher(outputs, targets)
        assert set(found) == {"indices"}
        assert len(found["indices"]) == len(targets)
        for image, indices in enumerate(found["indices"]):
            cost = costs(matcher, outputs, targets, image)
            best = cost[linear_sum_assignment(cost)].sum()
            pairs = pairs_of(indices)
            assert pairs == sorted(pairs)
            assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == min(cost.shape)
            assert total(cost, pairs) == pytest.approx(best, rel=1e-5, abs=1e-4)
            if batch % 10 == 0 and is_unique(cost, pairs, best):
                assert pairs == list(zip(*(side.tolist() for side in linear_sum_assignment(cost)), strict=True))
                compared += 1
    assert compared > 30


@pytest.mark.parametrize("focal", [False, True])
def test_greedy_is_its_rule(focal: bool) -> None:
    matcher = HungarianMatcher(WEIGHTS, use_focal_loss=focal, use_gpu_match=True, device="cpu")
    rng = np.random.default_rng(2 + focal)
    for batch in range(200):
        outputs, targets = random_batch(rng, nans=batch % 5 == 0)
        found = matcher(outputs, targets)["indices"]
        assert [pairs_of(p) for p in matcher(outputs, targets, use_gpu_match=False, mode="greedy")["indices"]] == [
            pairs_of(p) for p in found
        ]
        for image, indices in enumerate(found):
            cost = costs(matcher, outputs, targets, image)
            # Pairs that cost the same are told apart by order; in float64 none else does.
            assert total(cost, pairs_of(indices)) == pytest.approx(total(cost, greedy(cost)), rel=1e-5, abs=1e-4)
            if not np.isnan(outputs["pred_boxes"]).any() and not np.isnan(outputs["pred_logits"]).any():
                assert pairs_of(indices) == greedy(cost)


def test_greedy_pays_more_than_the_optimum_where_it_must() -> None:
    # Both targets are nearest to query 0. The first is nearer and keeps it, so the second takes query 1, far away.
    outputs = {
        "pred_logits": np.zeros((1, 2, 1), np.float32),
        "pred_boxes": np.array([[[0.5, 0.5, 0.1, 0.1], [0.4, 0.5, 0.1, 0.1]]], np.float32),
    }
    targets = [{"labels": np.zeros(2, int), "boxes": np.array([[0.51, 0.5, 0.1, 0.1], [0.54, 0.5, 0.1, 0.1]])}]
    matcher = HungarianMatcher({"cost_class": 0, "cost_bbox": 1, "cost_giou": 0}, device="cpu")
    assert pairs_of(matcher(outputs, targets, use_gpu_match=True)["indices"][0]) == [(0, 0), (1, 1)]
    assert greedy(costs(matcher, outputs, targets, 0)) == [(0, 0), (1, 1)]
    outputs["pred_boxes"][0, 0, 0] = 0.55
    outputs["pred_boxes"][0, 1, 0] = 0.9
    targets[0]["boxes"][:, 0] = [0.52, 0.5]
    assert pairs_of(matcher(outputs, targets, use_gpu_match=True)["indices"][0]) == [(0, 0), (1, 1)]


def test_the_device_is_the_host() -> None:
    rng = np.random.default_rng(4)
    matchers = [HungarianMatcher(WEIGHTS, use_focal_loss=focal, device="cpu") for focal in (False, True)]
    for batch in range(200):
        outputs, targets = random_batch(rng, nans=batch % 5 == 0)
        k = int(rng.integers(0, 1 + min(3, outputs["pred_logits"].shape[1])))
        key = "indices_o2m" if k else "indices"
        for matcher in matchers:
            on_host = matcher(outputs, targets, return_topk=k)[key]
            on_device = matcher(outputs, targets, return_topk=k, use_gpu_match=True, mode="exact")[key]
            assert [pairs_of(p) for p in on_device] == [pairs_of(p) for p in on_host]


@pytest.mark.parametrize("use_gpu_match", [False, True])
def test_top_k_is_so_many_rounds(use_gpu_match: bool) -> None:
    matcher = HungarianMatcher(WEIGHTS, use_focal_loss=True, use_gpu_match=use_gpu_match, device="cpu")
    rng = np.random.default_rng(5)
    for _ in range(50):
        outputs, targets = random_batch(rng)
        queries = outputs["pred_logits"].shape[1]
        k = min(3, queries)
        found = matcher(outputs, targets, return_topk=k)
        assert set(found) == {"indices_o2m"}
        for image, indices in enumerate(found["indices_o2m"]):
            cost = costs(matcher, outputs, targets, image)
            pairs, each = pairs_of(indices), min(cost.shape)
            assert len(pairs) == k * each
            for round_ in range(k):
                of_round = pairs[round_ * each : (round_ + 1) * each]
                best = greedy(cost) if use_gpu_match else list(zip(*linear_sum_assignment(cost), strict=True))
                assert total(cost, of_round) == pytest.approx(total(cost, best), rel=1e-5, abs=1e-4)
                cost[[i for i, _ in of_round]] = TAKEN_COST
    for false in (False, None, 0):
        assert set(matcher(outputs, targets, return_topk=false)) == {"indices"}
    assert set(matcher(outputs, targets, return_topk=True)) == {"indices_o2m"}


def test_empty_images_keep_their_places() -> None:
    rng = np.random.default_rng(6)
    outputs = {
        "pred_logits": rng.normal(size=(4, 6, 3)).astype(np.float32),
        "pred_boxes": rng.uniform(0.1, 0.5, (4, 6, 4)).astype(np.float32),
    }
    nothing = {"labels": np.zeros(0, np.int64), "boxes": np.zeros((0, 4), np.float32)}
    something = {"labels": np.array([0, 2]), "boxes": outputs["pred_boxes"][3, [4, 1]]}
    for use_gpu_match in (False, True):
        matcher = HungarianMatcher(WEIGHTS, use_gpu_match=use_gpu_match, device="cpu")
        found = matcher(outputs, [nothing, something, nothing, something])["indices"]
        assert [len(i) for i, _ in found] == [0, 2, 0, 2]
        # The last image's targets lie where its queries 4 and 1 do.
        assert pairs_of(found[3]) == [(1, 1), (4, 0)]
        assert [len(i) for i, _ in matcher(outputs, [nothing] * 4)["indices"]] == [0] * 4
    no_queries = {"pred_logits": np.zeros((1, 0, 3), np.float32), "pred_boxes": np.zeros((1, 0, 4), np.float32)}
    assert pairs_of(matcher(no_queries, [something])["indices"][0]) == []
    no_images = {"pred_logits": np.zeros((0, 5, 3), np.float32), "pred_boxes": np.zeros((0, 5, 4), np.float32)}
    assert matcher(no_images, []) == {"indices": []}


class Lent:
    """An array of a library that knows DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_arrays_of_any_kind_and_layout() -> None:
    rng = np.random.default_rng(7)
    outputs, targets = random_batch(rng)
    targets[-1] = {"labels": np.array([0, 0]), "boxes": outputs["pred_boxes"][-1][[0, 0]] + np.float32(0.01)}
    matcher = HungarianMatcher(WEIGHTS)
    expected = [pairs_of(p) for p in matcher(outputs, targets)["indices"]]

    def strided(array: np.ndarray) -> np.ndarray:
        return np.repeat(array, 2, axis=0)[::2]

    def backwards(array: np.ndarray) -> np.ndarray:
        return array[..., ::-1].copy()[..., ::-1]

    for convert in (strided, backwards, np.asfortranarray, lambda a: a.astype(">f4"), lambda a: a.astype(np.float64)):
        changed = {key: convert(array) for key, array in outputs.items()}
        changed_targets = [{**t, "boxes": convert(t["boxes"])} for t in targets]
        assert [pairs_of(p) for p in matcher(changed, changed_targets)["indices"]] == expected
    for dtype in (np.uint8, np.int8, np.uint16, np.int32, np.uint64):
        changed_targets = [{**t, "labels": strided(t["labels"].astype(dtype))} for t in targets]
        assert [pairs_of(p) for p in matcher(outputs, changed_targets)["indices"]] == expected
    halves = {key: array.astype(np.float16) for key, array in outputs.items()}
    wide = {key: array.astype(np.float32) for key, array in halves.items()}
    assert [pairs_of(p) for p in matcher(halves, targets)["indices"]] == [
        pairs_of(p) for p in matcher(wide, targets)["indices"]
    ]
    read_only = {key: array.copy() for key, array in outputs.items()}
    for array in read_only.values():
        array.flags.writeable = False
    assert [pairs_of(p) for p in matcher(read_only, targets)["indices"]] == expected


def test_kind_of_the_result_follows_the_input() -> None:
    rng = np.random.default_rng(8)
    outputs, targets = random_batch(rng)
    matcher = HungarianMatcher(WEIGHTS)
    of_numpy = matcher(outputs, targets)["indices"]
    assert all(type(side) is np.ndarray for pair in of_numpy for side in pair)
    lent = {key: Lent(array) for key, array in outputs.items()}
    lent_targets = [{"labels": Lent(t["labels"]), "boxes": Lent(t["boxes"])} for t in targets]
    of_dlpack = matcher(lent, lent_targets)["indices"]
    assert all(type(side) is Tensor for pair in of_dlpack for side in pair)
    assert [pairs_of(p) for p in of_dlpack] == [pairs_of(p) for p in of_numpy]
    assert all(np.from_dlpack(side).dtype == np.int64 for pair in of_dlpack for side in pair)


class LentFromElsewhere(Lent):
    """The same of a library whose memory the host cannot read."""

    def __dlpack_device__(self) -> Any:
        return (2, 0)

    def __dlpack__(self, **keywords: Any) -> Any:
        raise BufferError("it is on a GPU")


def test_memory_that_is_not_the_hosts() -> None:
    outputs, targets = random_batch(np.random.default_rng(13))
    outputs["pred_boxes"] = LentFromElsewhere(outputs["pred_boxes"])
    with pytest.raises(ValueError, match=r"outputs\['pred_boxes'\] cannot be read, it must be in the host's memory"):
        HungarianMatcher(WEIGHTS)(outputs, targets)


def test_contiguous_float32_is_not_copied() -> None:
    outputs, targets = random_batch(np.random.default_rng(9))
    matcher = HungarianMatcher(WEIGHTS)
    before = ultramotion.copied_bytes()
    matcher(outputs, targets)
    assert ultramotion.copied_bytes() == before
    matcher({**outputs, "pred_logits": outputs["pred_logits"].astype(np.float64)}, targets)
    assert ultramotion.copied_bytes() == before + outputs["pred_logits"].nbytes


def test_attributes_repr_and_copies() -> None:
    matcher = HungarianMatcher(WEIGHTS, True, 0.5, 1.5, True, device="cpu", mode="exact")
    assert matcher.weight_dict == WEIGHTS
    assert (matcher.cost_class, matcher.cost_bbox, matcher.cost_giou) == (2, 5, 2)
    assert (matcher.use_focal_loss, matcher.alpha, matcher.gamma, matcher.use_gpu_match) == (True, 0.5, 1.5, True)
    assert (matcher.device, matcher.mode) == ("cpu", "exact")
    assert repr(matcher) == (
        "HungarianMatcher(weight_dict={'cost_class': 2.0, 'cost_bbox': 5.0, 'cost_giou': 2.0}, use_focal_loss=True, "
        "alpha=0.5, gamma=1.5, use_gpu_match=True, device='cpu', mode='exact')"
    )
    for twin in (eval(repr(matcher)), copy.deepcopy(matcher), pickle.loads(pickle.dumps(matcher))):
        assert repr(twin) == repr(matcher)
    plain = HungarianMatcher(WEIGHTS)
    assert (plain.use_focal_loss, plain.alpha, plain.gamma, plain.use_gpu_match) == (False, 0.25, 2.0, False)
    assert (plain.device, plain.mode) == ("auto", None)
    for word in ("cost_class", "[B, Q, C]", "return_topk", "ValueError", "(cx, cy, w, h)"):
        assert word in (HungarianMatcher.__doc__ or "")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (({"cost_class": 1, "cost_bbox": 1},), ValueError, "no 'cost_giou'"),
        (({**WEIGHTS, "cost_mask": 1},), ValueError, "the key 'cost_mask'"),
        (({**WEIGHTS, 5: 1},), ValueError, "the key 5"),
        ((dict.fromkeys(WEIGHTS, 0),), ValueError, "must not all be 0"),
        (({**WEIGHTS, "cost_bbox": float("nan")},), ValueError, "weight_dict\\['cost_bbox'\\] is nan"),
        (({**WEIGHTS, "cost_bbox": 1e300},), ValueError, "must be finite"),
        (({**WEIGHTS, "cost_bbox": "5"},), TypeError, "must be a number"),
        (([1, 5, 2],), TypeError, "weight_dict is a dictionary"),
        ((WEIGHTS, True, 1.5), ValueError, "`alpha` is 1.5"),
        ((WEIGHTS, True, 0.25, -1.0), ValueError, "`gamma` is -1"),
        ((WEIGHTS, True, 0.25, float("nan")), ValueError, "`gamma` is NaN"),
    ],
)
def test_wrong_settings(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        HungarianMatcher(*arguments)


def test_wrong_devices_and_modes() -> None:
    with pytest.raises(ValueError, match="'gpu' is not known"):
        HungarianMatcher(WEIGHTS, device="gpu")
    with pytest.raises(ValueError, match="mode 'best' is not known"):
        HungarianMatcher(WEIGHTS, mode="best")
    outputs, targets = random_batch(np.random.default_rng(10))
    with pytest.raises(ValueError, match="mode 'best' is not known"):
        HungarianMatcher(WEIGHTS)(outputs, targets, mode="best")


LOGITS, BOXES = np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), 0.5, np.float32)
GOOD = {"labels": np.array([1]), "boxes": np.full((1, 4), 0.5, np.float32)}


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "text"),
    [
        ({"pred_boxes": BOXES}, [GOOD, GOOD], ValueError, "outputs has no 'pred_logits'"),
        ([LOGITS, BOXES], [GOOD, GOOD], TypeError, "outputs is a dictionary, not <class 'list'>"),
        (None, [GOOD, GOOD], TypeError, "outputs is a dictionary"),
        (
            {"pred_logits": LOGITS[0], "pred_boxes": BOXES},
            [GOOD, GOOD],
            ValueError,
            r"\[3, 4\], but it must be \[B, Q, C",
        ),
        ({"pred_logits": LOGITS, "pred_boxes": BOXES[:, :2]}, [GOOD, GOOD], ValueError, r"must be \[2, 3, 4\]"),
        ({"pred_logits": LOGITS, "pred_boxes": BOXES[..., :3]}, [GOOD, GOOD], ValueError, r"must be \[2, 3, 4\]"),
        ({"pred_logits": LOGITS[..., :0], "pred_boxes": BOXES}, [GOOD, GOOD], ValueError, "at least one class"),
        (
            {"pred_logits": LOGITS.astype(int), "pred_boxes": BOXES},
            [GOOD, GOOD],
            TypeError,
            "int64, but it must be floats",
        ),
        ({"pred_logits": LOGITS.astype(complex), "pred_boxes": BOXES}, [GOOD, GOOD], TypeError, "must be floats"),
        ({"pred_logits": LOGITS.astype(object), "pred_boxes": BOXES}, [GOOD, GOOD], TypeError, "must be floats"),
        ({"pred_logits": LOGITS.tolist(), "pred_boxes": BOXES}, [GOOD, GOOD], TypeError, "a NumPy array or anything"),
        ({"pred_logits": LOGITS, "pred_boxes": BOXES}, [GOOD], ValueError, "targets is of 1 images"),
        ({"pred_logits": LOGITS, "pred_boxes": BOXES}, GOOD, TypeError, "targets is a list"),
        ({"pred_logits": LOGITS, "pred_boxes": BOXES}, [GOOD, 5], TypeError, r"targets\[1\] is a dictionary"),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [GOOD, {"labels": GOOD["labels"]}],
            ValueError,
            r"\[1\] has no 'boxes'",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [GOOD, {**GOOD, "labels": np.array([1.0])}],
            TypeError,
            r"targets\[1\]\['labels'\] is float64, but it must be integers",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [{**GOOD, "labels": np.array([[1]])}, GOOD],
            ValueError,
            r"targets\[0\]\['labels'\] has the shape \[1, 1\]",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [GOOD, {**GOOD, "labels": np.array([1, 1])}],
            ValueError,
            r"targets\[1\]\['boxes'\] has the shape \[1, 4\], but it must be \[2, 4\]",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [GOOD, {**GOOD, "labels": np.array([4])}],
            ValueError,
            "batch item 1: target 0 has label 4, but the logits have 4 classes",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [{**GOOD, "labels": np.array([-1])}, GOOD],
            ValueError,
            "label -1",
        ),
        (
            {"pred_logits": LOGITS, "pred_boxes": BOXES},
            [{**GOOD, "labels": np.array([1 << 40])}, GOOD],
            ValueError,
            "label",
        ),
    ],
)
@pytest.mark.parametrize("use_gpu_match", [False, True])
def test_wrong_batches(outputs: Any, targets: Any, error: type[Exception], text: str, use_gpu_match: bool) -> None:
    matcher = HungarianMatcher(WEIGHTS, use_gpu_match=use_gpu_match, device="cpu")
    with pytest.raises(error, match=text):
        matcher(outputs, targets)
    assert len(matcher({"pred_logits": LOGITS, "pred_boxes": BOXES}, [GOOD, GOOD])["indices"]) == 2


@pytest.mark.parametrize(
    ("k", "error"), [(-1, ValueError), (4, ValueError), (1 << 70, ValueError), ("2", TypeError), (1.5, TypeError)]
)
def test_wrong_numbers_of_rounds(k: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="return_topk is"):
        HungarianMatcher(WEIGHTS)({"pred_logits": LOGITS, "pred_boxes": BOXES}, [GOOD, GOOD], return_topk=k)


def test_threads_share_a_matcher() -> None:
    matcher = HungarianMatcher(WEIGHTS, use_focal_loss=True, device="cpu")
    rng = np.random.default_rng(11)
    batches = [random_batch(rng) for _ in range(40)]
    expected = {
        gpu: [[pairs_of(p) for p in matcher(o, t, use_gpu_match=gpu)["indices"]] for o, t in batches]
        for gpu in (False, True)
    }
    wrong: list[Any] = []

    def work(first: int) -> None:
        try:
            for n in range(200):
                index, gpu = (first + n) % len(batches), n % 2 == 0
                found = [pairs_of(p) for p in matcher(*batches[index], use_gpu_match=gpu)["indices"]]
                if found != expected[gpu][index]:
                    wrong.append((index, gpu))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(12)
    for use_gpu_match in (False, True):
        matcher = HungarianMatcher(WEIGHTS, use_focal_loss=True, use_gpu_match=use_gpu_match, device="cpu")
        for _ in range(20):
            outputs, targets = random_batch(rng)
            expected = [pairs_of(p) for p in matcher(outputs, targets)["indices"]]
            of_torch = {key: torch.tensor(array, requires_grad=True) for key, array in outputs.items()}
            torch_targets = [{key: torch.from_numpy(array) for key, array in t.items()} for t in targets]
            found = matcher(of_torch, torch_targets)["indices"]
            for i, j in found:
                assert i.dtype == j.dtype == torch.int64
                assert i.device.type == "cpu"
            assert [pairs_of(p) for p in found] == expected
            # As a training loop uses them.
            rows = torch.cat([torch.full_like(i, image) for image, (i, _) in enumerate(found)])
            columns = torch.cat([i for i, _ in found])
            of_torch["pred_boxes"][rows, columns].sum().backward()
            assert of_torch["pred_boxes"].grad is not None
            transposed = {key: array.transpose(0, 1).contiguous().transpose(0, 1) for key, array in of_torch.items()}
            assert [pairs_of(p) for p in matcher(transposed, torch_targets)["indices"]] == expected
    narrow = {key: array.detach().bfloat16() for key, array in of_torch.items()}
    wide = {key: array.float() for key, array in narrow.items()}
    assert [pairs_of(p) for p in matcher(narrow, torch_targets)["indices"]] == [
        pairs_of(p) for p in matcher(wide, torch_targets)["indices"]
    ]

    class Boxes(torch.Tensor):
        """As torchvision's tensors are."""

    derived = [{**t, "boxes": t["boxes"].as_subclass(Boxes)} for t in torch_targets]
    assert [pairs_of(p) for p in matcher(of_torch, derived)["indices"]] == expected
    with pytest.raises(TypeError, match="must be floats"):
        matcher({**of_torch, "pred_logits": of_torch["pred_logits"].detach().long()}, torch_targets)
