"""metrics: closed forms, agreement with basicsr, and what each metric is there to notice."""

import math
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur, pil_to_tensor, to_pil_image

from gigasr import metrics

DATA = Path(os.environ.get("GIGASR_DATA", Path(__file__).parents[2] / "shared" / "data"))
KODAK = sorted((DATA / "kodak24").glob("*.png"))
FEATURES = DATA / "squeezenet1_1_features.pth"
needs_data = pytest.mark.skipif(
    not (len(KODAK) == 24 and FEATURES.exists()), reason=f"no kodak24 and SqueezeNet weights in {DATA}; set GIGASR_DATA"
)


@pytest.fixture(scope="module")
def random_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "features.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), path)
    return path


def textured(height: int = 96, width: int = 112, seed: int = 0) -> Tensor:
    """An image with detail at every scale: [3, height, width] in [0, 1], 8 bit."""
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    layers = [gaussian_blur(noise, 4 * sigma + 1, float(sigma)) * sigma for sigma in (1, 2, 4, 8)]
    image = sum(layers) + 0.2 * noise
    image = (image - image.min()) / (image.max() - image.min())
    return (image * 255).round() / 255


def worse(image: Tensor, amount: float, seed: int = 1) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + amount * noise).clamp(0, 1)


def as_bgr(image: Tensor) -> object:
    return (image * 255).round().to(torch.uint8).flip(0).permute(1, 2, 0).numpy()


def test_psnr_of_a_constant_offset_is_its_closed_form() -> None:
    dark, bright = torch.full((3, 20, 30), 100 / 255), torch.full((3, 20, 30), 110 / 255)
    luma_offset = 10 * 219 / 255
    assert metrics.psnr_y(dark, bright, border=2) == pytest.approx(20 * math.log10(255 / luma_offset), abs=1e-9)


def test_equal_images_have_infinite_psnr_and_ssim_1() -> None:
    image = textured()
    assert metrics.psnr_y(image, image, border=4) == math.inf
    assert metrics.ssim_y(image, image, border=4) == pytest.approx(1, abs=1e-12)


def test_ssim_of_two_flat_images_is_its_luminance_term() -> None:
    x, y = 16 + 219 * 100 / 255, 16 + 219 * 200 / 255
    c1 = (0.01 * 255) ** 2
    ssim = metrics.ssim_y(torch.full((3, 16, 16), 100 / 255), torch.full((3, 16, 16), 200 / 255), border=0)
    assert ssim == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1), abs=1e-9)


@pytest.mark.parametrize("border", [0, 8])
@pytest.mark.parametrize("amount", [0.01, 0.2])
def test_psnr_and_ssim_equal_those_of_basicsr(basicsr: ModuleType, border: int, amount: float) -> None:
    truth = textured(75, 64)
    result = worse(truth, amount)
    psnr = basicsr.calculate_psnr(as_bgr(result), as_bgr(truth), border, test_y_channel=True)
    ssim = basicsr.calculate_ssim(as_bgr(result), as_bgr(truth), border, test_y_channel=True)
    assert metrics.psnr_y(result, truth, border) == pytest.approx(psnr, abs=1e-6)
    assert metrics.ssim_y(result, truth, border) == pytest.approx(ssim, abs=1e-6)


def test_what_happens_in_the_border_does_not_count() -> None:
    truth = textured()
    result = truth.clone()
    result[:, :4], result[:, :, -4:] = 0, 1
    assert metrics.psnr_y(result, truth, border=3) < 30
    assert metrics.psnr_y(result, truth, border=4) == math.inf
    assert metrics.ssim_y(result, truth, border=4) == pytest.approx(1, abs=1e-12)


def test_differences_below_8_bit_do_not_count() -> None:
    truth = textured()
    assert metrics.psnr_y(truth + 0.4 / 255, truth, border=0) == math.inf


def test_values_outside_the_range_count_as_black_and_white() -> None:
    truth = torch.cat([torch.zeros(3, 8, 16), torch.ones(3, 8, 16)], dim=1)
    assert metrics.psnr_y(truth * 3 - 1, truth, border=0) == math.inf


def test_niqe_equals_that_of_basicsr_and_prefers_natural_texture(basicsr: ModuleType) -> None:
    image = textured(200, 300)
    noisy = worse(image, 0.3)
    assert metrics.niqe(image) == pytest.approx(basicsr.calculate_niqe(as_bgr(image), 0), abs=1e-9)
    assert metrics.niqe(image) < metrics.niqe(noisy)


def test_niqe_of_a_flat_image_is_not_a_number(basicsr: ModuleType) -> None:
    assert math.isnan(metrics.niqe(torch.full((3, 192, 192), 0.5)))


def test_niqe_refuses_an_image_of_one_block() -> None:
    with pytest.raises(ValueError, match=r"metrics.niqe: expected at least two blocks .* got 96x112 px"):
        metrics.niqe(textured())


@pytest.mark.parametrize(("package", "advice"), [("lpips", "pip install lpips"), ("basicsr", "gigasr.eval")])
def test_a_missing_package_is_named_with_its_install_command(
    package: str, advice: str, random_features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"expected the package {package}.*{advice}"):
        metrics.Lpips(features=random_features) if package == "lpips" else metrics.niqe(textured(192, 192))


def test_lpips_of_equal_images_is_0_and_grows_with_the_difference(random_features: Path) -> None:
    lpips, truth = metrics.Lpips(features=random_features), textured()
    distances = [metrics.lpips_distance(worse(truth, amount), truth, lpips) for amount in (0, 0.05, 0.2, 0.6)]
    assert distances[0] == 0
    assert distances == sorted(set(distances))


def test_lpips_as_a_loss_reaches_the_images_and_not_its_own_weights(random_features: Path) -> None:
    lpips = metrics.Lpips(features=random_features)
    fake = (torch.stack([textured(64, 64, 1), textured(64, 64, 2)]) * 2 - 1).requires_grad_()
    distances = lpips(fake, torch.zeros_like(fake))
    distances.mean().backward()
    assert distances.shape == (2,)
    assert fake.grad is not None and fake.grad.isfinite().all() and fake.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_lpips_stays_the_same_in_training_mode(random_features: Path) -> None:
    x, y = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    lpips = metrics.Lpips(features=random_features)
    assert torch.equal(lpips(x, y), lpips.train()(x, y))


def test_lpips_uses_the_file_and_leaves_the_random_state_alone(random_features: Path) -> None:
    x, y = textured(64, 64) * 2 - 1, textured(64, 64, 1) * 2 - 1
    torch.manual_seed(3)
    first = metrics.Lpips(features=random_features)(x[None], y[None])
    drawn = torch.rand(1)
    second = metrics.Lpips(features=random_features)(x[None], y[None])
    torch.manual_seed(3)
    assert torch.equal(first, second)
    assert torch.equal(drawn, torch.rand(1))


def test_lpips_accepts_the_weights_of_the_whole_network(random_features: Path, tmp_path: Path) -> None:
    features = torch.load(random_features, weights_only=True)
    whole = {f"features.{key}": value for key, value in features.items()} | {"classifier.1.bias": torch.zeros(1000)}
    torch.save(whole, tmp_path / "whole.pth")
    x, y = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    distances = [metrics.Lpips(features=path)(x, y) for path in (tmp_path / "whole.pth", random_features)]
    assert torch.equal(*distances)


@pytest.mark.parametrize("net", ["squeeze", "alex"])
def test_lpips_equals_the_package(net: str, tmp_path: Path) -> None:
    import lpips

    torch.manual_seed(0)
    package = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    torch.save({key.partition(".")[2]: value for key, value in package.net.state_dict().items()}, tmp_path / "f.pth")
    x, y = (textured(64, 64, seed) for seed in (1, 2))
    distance = metrics.lpips_distance(x, y, metrics.Lpips(net, tmp_path / "f.pth"))  # type: ignore[arg-type]
    assert distance == pytest.approx(package(x[None] * 2 - 1, y[None] * 2 - 1).item(), rel=1e-5) != 0


def test_without_a_file_and_offline_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ConnectionError, match=r"expected torchvision's weights of squeeze .* --lpips-features"):
        metrics.Lpips()


def test_lpips_refuses_the_file_of_another_network(random_features: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics.Lpips: features: expected .* got no '10.bias'"):
        metrics.Lpips("alex", random_features)


def test_spectrum_error_sees_blur_and_checkerboard() -> None:
    truth = textured()
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(112), indexing="ij")
    checkerboard = (rows // 2 + columns // 2) % 2 * 0.1 - 0.05
    assert metrics.spectrum_error(truth, truth) == 0
    assert metrics.spectrum_error(gaussian_blur(truth, 9, 2.0), truth) > 3
    assert metrics.spectrum_error((truth + checkerboard).clamp(0, 1), truth) > 3


def test_spectrum_error_of_half_the_contrast_is_6_db() -> None:
    truth = (textured(128, 128) * 100).round() * 2 / 255
    assert metrics.spectrum_error(truth / 2, truth) == pytest.approx(20 * math.log10(2), abs=0.01)


def test_spectrum_error_looks_at_the_central_square() -> None:
    truth = textured(64, 128)
    result = truth.clone()
    result[:, :, :32], result[:, :, 96:] = 0, 0
    assert metrics.spectrum_error(result, truth) == 0


def test_lr_psnr_is_infinite_for_an_image_that_reduces_to_its_input() -> None:
    hr = textured(96, 112)
    assert metrics.lr_psnr(hr, metrics.low_res_from(hr, 8), 8) == math.inf


def test_lr_psnr_of_a_bicubic_round_trip_is_high_and_a_colour_shift_lowers_it() -> None:
    low_res = metrics.low_res_from(textured(160, 192), 4)
    result = pil_to_tensor(to_pil_image(low_res).resize((192, 160), Image.Resampling.BICUBIC)) / 255
    shifted = (result + torch.tensor([0.04, 0, -0.04])[:, None, None]).clamp(0, 1)
    assert metrics.lr_psnr(result, low_res, 4) > 35
    assert metrics.lr_psnr(shifted, low_res, 4) < 31


def test_low_res_is_cropped_to_a_multiple_and_in_8_bit() -> None:
    hr = textured(67, 90)
    low_res = metrics.low_res_from(hr, 8)
    assert low_res.shape == (3, 8, 11)
    assert torch.equal((low_res * 255).round() / 255, low_res)
    assert torch.equal(low_res, metrics.low_res_from(metrics.crop_to_multiple(hr, 8), 8))


def test_crop_keeps_the_top_left_corner() -> None:
    hr = textured(67, 90)
    assert torch.equal(metrics.crop_to_multiple(hr, 8), hr[:, :64, :88])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.zeros(1, 3, 64, 64), r"psnr_y: expected a float image \[3, H, W\].* got torch.float32 of shape \(1, 3"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), r"psnr_y: expected a float image .* got torch.uint8"),
        (torch.zeros(3, 64, 72), r"psnr_y: expected two images of one size, got 64x72 px and 64x64 px"),
        (torch.full((3, 64, 64), math.nan), r"psnr_y: expected finite values, got NaN"),
    ],
)
def test_an_image_that_is_no_image_is_refused(result: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.psnr_y(result, torch.zeros(3, 64, 64), border=0)


def test_images_too_small_for_a_metric_are_refused() -> None:
    small = torch.zeros(3, 16, 40)
    with pytest.raises(ValueError, match=r"lpips_distance: expected at least 32x32 px .* got 16x40 px"):
        metrics.lpips_distance(small, small, torch.nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ssim_y: expected at least 11x11 px inside a border of 4 px, got 16x40 px"):
        metrics.ssim_y(small, small, border=4)
    with pytest.raises(ValueError, match="spectrum_error: expected at least 64x64 px"):
        metrics.spectrum_error(small, small)
    with pytest.raises(ValueError, match="lr_psnr: expected a result of 128x320 px"):
        metrics.lr_psnr(small, small, 8)
    with pytest.raises(ValueError, match="crop_to_multiple: .* got 16x40 px and a scale of 32"):
        metrics.low_res_from(small, 32)


def lanczos_4x(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """The baseline: result, truth and input."""
    truth = pil_to_tensor(Image.open(path).convert("RGB")) / 255
    low_res = metrics.low_res_from(truth, 4)
    result = to_pil_image(low_res).resize((truth.shape[2], truth.shape[1]), Image.Resampling.LANCZOS)
    return pil_to_tensor(result) / 255, truth, low_res


@needs_data
def test_lanczos_on_kodak24_gives_the_baseline_means_at_4x() -> None:
    values = []
    for result, truth, low_res in map(lanczos_4x, KODAK[::3]):
        values.append([metrics.psnr_y(result, truth, 4), metrics.spectrum_error(result, truth)])
        values[-1].append(metrics.lr_psnr(result, low_res, 4))
    psnr, spectrum, faithfulness = torch.tensor(values).mean(dim=0).tolist()
    assert psnr == pytest.approx(27.01, abs=0.005)
    assert spectrum == pytest.approx(25.4, abs=0.05)
    assert faithfulness == pytest.approx(40.6, abs=0.05)


@needs_data
def test_lpips_with_its_true_weights_gives_the_known_distance() -> None:
    result, truth, _ = lanczos_4x(KODAK[0])
    assert metrics.lpips_distance(result, truth, metrics.Lpips(features=FEATURES)) == pytest.approx(0.3699, abs=5e-4)


def test_a_file_that_is_no_backbone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"a.pth: expected weights, got UnpicklingError"):
        metrics.Lpips("squeeze", tmp_path / "a.pth")
