"""The benchmark times both networks on as many output pixels and gives their ratio."""

from types import ModuleType

import pytest
import torch

from gigasr import bench


def test_the_peer_is_real_esrgans_small_network(basicsr: ModuleType) -> None:
    network = bench.compact(torch.device("cpu"), torch.float32)
    assert sum(p.numel() for p in network.parameters()) == 1_213_296
    assert network(torch.rand(1, 3, 8, 9)).shape == (1, 3, 32, 36)


def test_the_table_has_both_times_and_their_ratio(basicsr: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SIZES", (8,))
    lines = bench.run("cpu", repeats=1).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["upsampler_lite", "compact", "ratio"]
    ours, theirs, ratio = (float(line.split()[-1]) for line in lines[1:])
    assert ratio == pytest.approx(ours / theirs, rel=0.05)
