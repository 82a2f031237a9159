"""Metrics of generated icons, at values known beforehand."""

import pytest
import torch

from gigasr_base.metrics import hit_rate, largest_jump, nearest, overlap, silhouette


def test_the_nearest_is_the_query_itself_and_scale_does_not_matter() -> None:
    gallery = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    mean = gallery.mean(dim=0)
    found = nearest(mean + 3 * (gallery[[4, 7]] - mean), gallery, 3)
    assert found.shape == (2, 3)
    assert found[:, 0].tolist() == [4, 7]


def test_what_all_have_in_common_counts_for_nothing() -> None:
    gallery = torch.tensor([[100.0, 1.0], [100.0, -1.0]])
    assert nearest(torch.tensor([[100.0, -0.1]]), gallery, 1).item() == 1


def test_a_hit_is_a_find_with_the_wanted_label() -> None:
    found = torch.tensor([[0, 1], [2, 1], [3, 0]])
    assert hit_rate(found, ["cat", "dog", "dog", "tree"], ["dog", "cat", "tree"]) == pytest.approx(2 / 3)


def test_silhouettes_are_what_is_not_white() -> None:
    image = torch.ones(1, 3, 2, 2)
    image[0, 2, 0, 1] = 0.0
    assert silhouette(image).tolist() == [[[False, True], [False, False]]]


def test_overlap_is_intersection_over_union() -> None:
    a = torch.tensor([[[True, True, False]], [[False, False, False]]])
    b = torch.tensor([[[False, True, True]], [[False, False, False]]])
    torch.testing.assert_close(overlap(a, b), torch.tensor([1 / 3, 1.0]))


def test_a_steady_film_has_no_jump_and_a_cut_is_one() -> None:
    steady = torch.linspace(0, 1, 9)[:, None, None, None].expand(-1, 3, 4, 4).clone()
    assert largest_jump(steady) == pytest.approx(1.0)
    steady[5:] += 0.5
    assert largest_jump(steady) == pytest.approx(5.0)
