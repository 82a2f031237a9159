"""The benchmark times all networks in turn and gives each a row with its metrics."""

from pathlib import Path

import pytest
import torch

from gigasr.evaluation import bench
from gigasr.evaluation.bench_table import format_benchmarks
from gigasr.inference.devices import ExecutionPlan


def test_the_peers_are_real_esrgans_networks() -> None:
    compact, large = bench.peer_cases(ExecutionPlan())
    assert [sum(p.numel() for p in case.convolutions.parameters()) for case in (compact, large)] == [
        1_213_296,
        16_697_987,
    ]
    assert compact.run().shape == (1, 3, 512, 512)
    assert compact.pixels == 512**2


def test_flops_count_two_per_multiplication_and_addition() -> None:
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert bench.count_flops(lambda: layer(torch.rand(1, 3, 8, 9))) == 2 * 8 * 9 * 5 * 3 * 9


def test_the_bare_convolutions_are_all_of_the_networks() -> None:
    plan = bench.plan_benchmarks("cpu", "fp32", 8, 1, "cpu", ())
    compact = bench.peer_cases(plan.execution)[0]
    flops, seconds = bench.bare_convolutions(compact, plan)
    assert flops == bench.count_flops(compact.run)
    assert seconds > 0


def test_every_network_has_a_row_with_its_metrics(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PEER_SIDE", 8)
    monkeypatch.setattr(bench, "MATMUL_SIDE", 64)
    result = bench.run_benchmarks(bench.plan_benchmarks("cpu", "fp32", 8, 1, "wall", (), (str(tiny_onnx),)))
    names = [case["name"] for case in result["cases"]]
    assert names[:2] == ["upsampler_lite, pipeline", "upsampler_lite, folded"]
    assert names[-3:] == ["tiny.onnx", "SRVGGNetCompact(64, 32)", "RRDBNet-23"]
    assert all(case["seconds_per_mp"] > 0 for case in result["cases"])
    assert [case["name"] for case in result["cases"] if "gflop_per_mp" not in case] == ["tiny.onnx"]
    lines = format_benchmarks(result).splitlines()
    assert len(lines) == len(names) + 2
    assert lines[-2].split()[-1] == "1.000"
    assert lines[-4][43:73].strip() == ""  # torch does not see what onnxruntime computes


def test_a_network_with_global_attention_is_timed_at_its_own_size(tmp_path: Path) -> None:
    windowed = Path("configs/upsampler_tiny.toml").read_text(encoding="utf-8")
    (tmp_path / "windowed.toml").write_text(windowed)
    (tmp_path / "global.toml").write_text(windowed.replace("window = 4", "window = 0"))
    plan = bench.plan_benchmarks("cpu", "fp32", 24, 1, "cpu", ())
    sides = {"windowed": 24, "global": bench.load_config(tmp_path / "global.toml").upsampler.lr_size}
    assert sides["global"] != 24
    for name, side in sides.items():
        cases = bench.config_cases(tmp_path / f"{name}.toml", plan)
        assert [case.name for case in cases] == [f"{name}, folded", f"{name}, unfolded fp32"]
        assert [case.pixels for case in cases] == [(8 * side) ** 2] * 2


def test_a_side_is_rounded_up_to_what_the_network_takes() -> None:
    plan = bench.plan_benchmarks("cpu", "fp32", 10, 1, "cpu", ())
    for case in bench.config_cases(Path("configs/upsampler_tiny.toml"), plan):
        assert case.pixels == (8 * 12) ** 2
        with torch.inference_mode():
            case.run()


def test_aurasr_is_compared_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aura_sr", reason="the package to compare with is not installed")
    small = {"dim": 4, "self_attn_heads": 2, "self_attn_dim_head": 4}
    monkeypatch.setattr(bench, "PEER_SIDE", 32)
    monkeypatch.setattr(bench, "AURASR", bench.AURASR | small)
    cases = bench.aurasr_cases(ExecutionPlan(dtype=torch.bfloat16))
    assert [case.name for case in cases] == ["AuraSR, float32", "AuraSR, bfloat16", "AuraSR, its package"]
    with torch.inference_mode():
        for case in cases:
            case.run()
    assert cases[-1].run().size == (256, 256)
    assert {case.pixels for case in cases} == {256 * 256}
