"""A picture is upscaled to the size asked for, true to its input, the same for every way of cutting it."""

import dataclasses
import gc
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from gigasr.files.picture import Picture
from gigasr.files.transpose import transpose
from gigasr.inference.devices import ExecutionPlan, choose_device, choose_dtype
from gigasr.inference.engine import BlendedTileEngine
from gigasr.inference.row_stream import RowStream
from gigasr.inference.tiling import TilingRules
from gigasr.metrics import lr_psnr
from gigasr.models.zoo import load_model
from gigasr.networks.ops import resize, upsample_bicubic
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver
from gigasr.sizes import fit_size, plan_passes, target_size


@pytest.fixture(scope="module")
def resolver(tiny_weights: Path) -> SuperResolver:
    return SuperResolver(load_model(str(tiny_weights)), device="cpu", precision="fp32")


def picture(height: int, width: int, seed: int = 0) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height, width, generator=generator)
    return Picture(torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (17, 9), (40, 33)])
def test_every_size_from_one_pixel_up_works(resolver: SuperResolver, size: tuple[int, int]) -> None:
    result = resolver.upscale(picture(*size))
    assert result.size == (size[0] * 8, size[1] * 8)
    assert result.rgb.isfinite().all()


@pytest.mark.parametrize("scale", [1, 2.5, 4, 8, 11, 64])
def test_every_scale_gives_its_size(resolver: SuperResolver, scale: float) -> None:
    assert resolver.upscale(picture(6, 9), scale=scale).size == (round(6 * scale), round(9 * scale))


def test_an_exact_size_is_met(resolver: SuperResolver) -> None:
    assert resolver.upscale(picture(12, 16), size=(101, 77)).size == (101, 77)


def test_the_result_reduced_gives_the_input_back(resolver: SuperResolver) -> None:
    source = picture(24, 32)
    source = Picture((source.rgb * 255).round() / 255)
    assert lr_psnr(resolver.upscale(source).rgb, source.rgb, 8) > 45
    assert lr_psnr(resolver.upscale(source, fidelity=0).rgb, source.rgb, 8) < 40


def test_the_network_adds_as_much_detail_as_is_asked_for(resolver: SuperResolver) -> None:
    source = picture(24, 32)
    none, half, whole = (resolver.upscale(source, fidelity=0, detail=detail).rgb for detail in (0.0, 0.5, 1.0))
    bicubic = upsample_bicubic(source.rgb[None] * 2 - 1, 8)[0].add(1).div(2).clamp(0, 1)
    torch.testing.assert_close(none, bicubic, atol=1e-5, rtol=0)
    inside = (whole > 0) & (whole < 1) & (bicubic > 0) & (bicubic < 1)
    torch.testing.assert_close(half[inside], ((whole + bicubic) / 2)[inside], atol=1e-5, rtol=0)
    assert lr_psnr(resolver.upscale(source, detail=2).rgb, source.rgb, 8) > 40


@pytest.mark.parametrize("fidelity", [0.0, 1.0])
def test_no_pass_holds_the_whole_of_the_image_before_it(tiny_weights: Path, fidelity: float) -> None:
    resolver, max_held = SuperResolver(load_model(str(tiny_weights)), "cpu", "fp32", tile=16, strip=4), 0
    for number, _ in enumerate(resolver.strips(picture(96, 4), UpscaleOptions(scale=64, fidelity=fidelity)).strips):
        if number % 16 == 15:
            held = [rows for rows in gc.get_objects() if type(rows) is RowStream and rows.size == (768, 32)]
            max_held = max(max_held, *(sum(strip.shape[2] for strip in rows._held) for rows in held))
    assert 0 < max_held < 768 / 2


def test_strip_height_does_not_change_the_picture(tiny_weights: Path) -> None:
    network = load_model(str(tiny_weights))
    whole = SuperResolver(network, "cpu", "fp32", strip=1000).upscale(picture(50, 12)).rgb
    for strip in (1, 7, 20):
        result = SuperResolver(network, "cpu", "fp32", strip=strip).upscale(picture(50, 12)).rgb
        torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


def test_threads_do_not_change_the_picture(resolver: SuperResolver) -> None:
    picture, threads, results = Picture(torch.rand(3, 40, 57)), torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(resolver.upscale(picture, scale=8).rgb)
    torch.set_num_threads(threads)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1 / 255, rtol=0)


def test_a_very_wide_picture_is_the_mirror_image_of_a_tall_one(
    resolver: SuperResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gigasr.pipeline.MAX_ROW_WIDTH", 20)
    wide = dataclasses.replace(picture(6, 30), alpha=torch.rand(1, 6, 30), dpi=(300.0, 150.0))
    result, tall = resolver.upscale(wide, size=(90, 300)), resolver.upscale(transpose(wide), size=(300, 90))
    torch.testing.assert_close(result.rgb, tall.rgb.transpose(1, 2), atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(result.alpha, tall.alpha.transpose(1, 2), atol=0.5 / 255 + 1e-6, rtol=0)
    assert result.dpi == pytest.approx((3000, 2250))
    assert resolver.upscale(picture(30, 30)).size == (240, 240)


def test_the_same_seed_gives_the_same_picture_and_another_does_not(resolver: SuperResolver) -> None:
    a, b, c = (resolver.upscale(picture(9, 9), seed=seed).rgb for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_prompt_changes_the_picture(resolver: SuperResolver) -> None:
    a, b = (resolver.upscale(picture(9, 9), prompt=prompt).rgb for prompt in ("a dog", "a wall of bricks"))
    assert not torch.equal(a, b)


def test_a_constant_alpha_stays_constant(resolver: SuperResolver) -> None:
    source = Picture(picture(6, 6).rgb, alpha=torch.full((1, 6, 6), 0.5))
    result = resolver.upscale(source)
    assert result.alpha is not None
    torch.testing.assert_close(result.alpha, torch.full((1, 48, 48), 0.5))


def test_hidden_colours_do_not_leak_from_transparent_pixels(resolver: SuperResolver) -> None:
    rgb, alpha = torch.full((3, 8, 16), 0.5), torch.ones(1, 8, 16)
    alpha[..., 8:] = 0
    pink = rgb.clone()
    pink[0, :, 8:] = 1.0
    results = [resolver.upscale(Picture(colour, alpha)) for colour in (rgb, pink)]
    torch.testing.assert_close(results[0].rgb, results[1].rgb, atol=1e-6, rtol=0)


def test_what_the_file_said_is_kept(resolver: SuperResolver) -> None:
    source = Picture(picture(4, 4).rgb, is_gray=True, bit_depth=16, icc_profile=b"profile")
    result = resolver.upscale(source)
    assert (result.is_gray, result.bit_depth, result.icc_profile) == (True, 16, b"profile")


def test_progress_ends_at_its_total(resolver: SuperResolver) -> None:
    seen: list[tuple[int, int]] = []
    resolver.upscale(picture(6, 6), scale=20, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {120} == {seen[-1][0]}


class Interpolation:
    """A model that takes no text: a black box on tiles."""

    scale, scales, takes_text = 3, [3], False

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BlendedTileEngine:
        network = partial(interpolate, scale_factor=3, mode="bilinear")
        return BlendedTileEngine(
            dict.fromkeys(execution.devices, network), 3, TilingRules(overlap=8, side=24), execution
        )


@pytest.mark.parametrize("scale", [2, 3, 5.5, 10])
def test_a_model_without_text_upscales_to_any_scale(scale: float, caplog: pytest.LogCaptureFixture) -> None:
    source = picture(40, 30)
    result = SuperResolver(Interpolation(), "cpu,cpu", "fp32").upscale(source, "a dog", scale=scale)
    assert result.size == (round(40 * scale), round(30 * scale))
    assert (resize(result.rgb[None], (40, 30))[0] - source.rgb).abs().mean() < 0.01
    assert [record.getMessage() for record in caplog.records] == ["prompt: ignored, as this model takes no text"]


def test_what_a_network_gives_beyond_white_counts_as_the_white_that_is_seen() -> None:
    class Rough(Interpolation):
        def engine(
            self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None
        ) -> BlendedTileEngine:
            pattern = torch.tensor([0.6, -0.3, -0.3]).tile(8)  # in the mean 0

            def network(x: torch.Tensor) -> torch.Tensor:
                return interpolate(x, scale_factor=3) + pattern

            return BlendedTileEngine(
                dict.fromkeys(execution.devices, network), 3, TilingRules(overlap=0, side=8), execution
            )

    source = Picture(torch.full((3, 8, 8), 0.8))
    result = SuperResolver(Rough(), "cpu", "fp32").upscale(source, scale=3).rgb
    assert (result.mean() - 0.8).abs() < 0.015  # if more than white counted, the mean would be 0.769


def test_tiles_join_without_a_step(tiny_weights: Path) -> None:
    """On a smooth slope the largest step between pixels at a border of tiles is no larger than elsewhere."""
    network = load_model(str(tiny_weights))
    slope = Picture(torch.linspace(0.2, 0.8, 96).expand(3, 40, 96).contiguous())
    result = SuperResolver(network, "cpu", "fp32", tile=32).upscale(slope).rgb
    steps = result.diff(dim=2).abs().mean(dim=(0, 1))
    borders = torch.cat([steps[i * 8 - 4 : i * 8 + 4] for i in range(16, 96, 16)])
    assert borders.max() <= 1.05 * steps.max()


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    scale=st.floats(1, 64),
    network=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=200, deadline=None)
def test_passes_reach_the_target_without_waste(size: tuple[int, int], scale: float, network: int) -> None:
    target = target_size(size, scale, None, network)
    passes = plan_passes(size, target, network)
    assert passes[0] == size
    if network == 1:
        assert passes == [size]
        return
    assert all(n * network >= t for n, t in zip(passes[-1], target, strict=True))
    for before, after in zip(passes[:-1], passes[1:], strict=True):
        assert all(b <= a * network for a, b in zip(before, after, strict=True))
        assert all(b >= 2 * n for n, b in zip(size, after, strict=True))


@pytest.mark.parametrize("scale", [8.5, 9, 12])
def test_a_result_of_two_passes_is_the_picture_when_reduced(resolver: SuperResolver, scale: float) -> None:
    source = picture(40, 32)
    result = resolver.upscale(source, scale=scale).rgb
    reduced = resize(result[None], (40, 32))[0].clamp(0, 1)
    assert 10 * torch.log10(1 / (reduced - source.rgb).square().mean()) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.5}, r"scale: expected 1\.\.64, got 0\.5"),
        ({"scale": 65}, r"scale: expected 1\.\.64, got 65"),
        ({"size": (3, 3)}, "size: expected at least 4x4 px, got 3x3"),
        ({"size": (4, 400)}, "size: expected at most 64 times 4x4 px, got 400x4"),
        ({"size": (8, 8), "scale": 2}, "size: expected a scale or a size, got both"),
        ({"fidelity": 1.5}, r"fidelity: expected 0\.\.1, got 1\.5"),
        ({"detail": 2.5}, r"detail: expected 0\.\.2, got 2\.5"),
        ({"seed": -1}, r"seed: expected 0\.\."),
        ({"prompt": None}, "prompt: expected a text, got NoneType"),
    ],
)
def test_impossible_requests_are_one_clear_error(
    resolver: SuperResolver, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolver.upscale(picture(4, 4), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_values_beyond_0_to_1_are_refused_before_anything_runs(resolver: SuperResolver, value: float) -> None:
    source = picture(4, 4)
    for name, values in {"rgb": source.rgb.clone(), "alpha": torch.ones(1, 4, 4)}.items():
        values[0, 1, 2] = value
        with pytest.raises(ValueError, match=rf"picture.{name}: expected values in 0\.\.1, got"):
            resolver.strips(dataclasses.replace(source, **{name: values}))
    with pytest.raises(ValueError, match="picture: expected a Picture, got str; read_image reads one from a file"):
        resolver.upscale("photo.png")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="picture: expected at least 1x1 px, got 4x0"):
        resolver.upscale(Picture(torch.rand(3, 0, 4)))


def test_strips_can_be_taken_once(resolver: SuperResolver) -> None:
    strips = resolver.strips(picture(4, 4))
    strips.join()
    with pytest.raises(ValueError, match="they can be taken once"):
        strips.join()


def test_a_gray_picture_stays_gray(resolver: SuperResolver) -> None:
    red, green, blue = resolver.upscale(dataclasses.replace(picture(6, 5), is_gray=True)).rgb
    assert torch.equal(red, green)
    assert torch.equal(green, blue)


def test_a_model_that_only_cleans_is_not_corrected_back_to_its_input() -> None:
    class Inversion:
        scale, scales, takes_text = 1, [1], False

        def engine(
            self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None
        ) -> BlendedTileEngine:
            return BlendedTileEngine(
                dict.fromkeys(execution.devices, torch.neg), 1, TilingRules(overlap=8, side=24), execution
            )

    source, cleaner = picture(30, 20), SuperResolver(Inversion(), "cpu", "fp32")
    torch.testing.assert_close(cleaner.upscale(source).rgb, 1 - source.rgb)
    torch.testing.assert_close(
        cleaner.upscale(source, scale=2).rgb, resize(1 - source.rgb[None], (60, 40))[0].clamp(0, 1)
    )


def test_fp16_is_never_chosen_for_a_cpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="precision: expected auto, fp32 or bf16, got 'fp16'"):
        choose_dtype("fp16", torch.device("cpu"))


@pytest.mark.parametrize("limit", ["SSE41", "avx2", "AVX512_CORE"])
def test_where_onednn_may_not_use_bf16_auto_is_fp32(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_where_torch_may_not_use_bf16_auto_is_fp32() -> None:
    code = "import torch; from gigasr.inference.devices import choose_dtype as c; print(c('auto', torch.device('cpu')))"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "torch.float32\n"


def test_where_nothing_limits_it_auto_is_bf16_on_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    known, is_limited = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability() != "AVX512"
    has_bf16 = (known.get("avx512_bf16") or known.get("amx_bf16")) and not is_limited
    assert choose_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if has_bf16 else torch.float32)


def test_an_absent_device_and_an_unknown_precision_are_named() -> None:
    with pytest.raises(ValueError, match="device: expected auto, cpu, cuda, cuda:N or mps, got 'toaster'"):
        choose_device("toaster")
    with pytest.raises(ValueError, match="precision: expected auto, fp32 or bf16, got 'fp8'"):
        choose_dtype("fp8", torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4k", (2048, 4096)),
        ("200x300", (100, 200)),
        ("1000x150", (150, 300)),
        ("8K", (4096, 8192)),
        ("500", (250, 500)),
    ],
)
def test_a_size_in_words_is_fitted_to_the_picture(text: str, expected: tuple[int, int]) -> None:
    assert fit_size(text, (100, 200)) == expected


@pytest.mark.parametrize("text", ["5k", "0x5", "0", "axb", "1x2x3", "-1x5", "²x5"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size: expected a side in px, 1k, 2k, 4k, 8k, 16k or WIDTHxHEIGHT"):
        fit_size(text, (10, 10))
