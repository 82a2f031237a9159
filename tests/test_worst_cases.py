"""The crop of a case lies where the error is."""

import torch

from gigasr.evaluation.worst_cases import SIDE, WorstCases, worst_corner


def test_the_crop_lies_where_the_error_is_largest() -> None:
    truth = torch.zeros(3, 600, 800)
    result = truth.clone()
    result[:, 400:420, 500:520] = 1
    top, left = worst_corner(result, truth)
    assert top <= 400 and 420 <= top + SIDE <= 600
    assert left <= 500 and 520 <= left + SIDE <= 800


def test_only_the_worst_are_kept_and_the_first_model_decides() -> None:
    worst, truth = WorstCases(2), torch.zeros(3, 8, 8)
    pictures = (truth, truth, truth)
    for model, distances in (("a", {"x": 0.1, "y": 0.3, "z": 0.2}), ("b", {"x": 0.9, "y": 0.1, "z": 0.1})):
        for image, distance in distances.items():
            worst.update(model, "input", image, "", {"lpips": distance}, pictures)
    assert [(case.image, list(case.crops)) for case in worst.cases.values()] == [
        (image, ["input", "truth", "a", "b"]) for image in ("y", "z")
    ]
