"""What several test modules share: the tiny config, its untrained weights as a file, small photos with captions."""

import json
import os
from pathlib import Path
from types import ModuleType

# before torch is imported: all workers of pytest-xdist together have as many threads as the machine has cores
os.environ.setdefault(
    "OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), 1))
)

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gigasr import metrics
from gigasr.config.model import Config, load_config
from gigasr.config.networks import UpsamplerConfig
from gigasr.models.checkpoint import save_weights
from gigasr.models.onnx_export import export_onnx
from gigasr.models.zoo import load_model
from gigasr.networks.upsampler import Upsampler
from gigasr_base.config import load_base_config
from gigasr_base.generator import Generator

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return load_config(ROOT / "configs" / "upsampler_tiny.toml")


@pytest.fixture(scope="session")
def tiny_weights(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of untrained weights of the tiny upsampler."""
    return save_upsampler(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_config.upsampler)


@pytest.fixture(scope="session")
def global_weights(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same where attention is global, as in the paper: its body runs on tiles of 8 px."""
    config = tiny_config.upsampler.model_copy(update={"window": 0})
    return save_upsampler(tmp_path_factory.mktemp("global") / "global.safetensors", config)


@pytest.fixture(scope="session")
def restoring_weights(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a root layer, which finds some damage in every image."""
    config = tiny_config.upsampler.model_copy(update={"restores": True})
    path = save_upsampler(tmp_path_factory.mktemp("restoring") / "restoring.safetensors", config)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["to_root.bank"].normal_(generator=torch.Generator().manual_seed(1))
    save_weights(path, tensors, "upsampler", config.model_dump(mode="json"), torch.float32)
    return path


def save_upsampler(path: Path, config: UpsamplerConfig) -> Path:
    torch.manual_seed(0)
    save_weights(path, Upsampler(config).state_dict(), "upsampler", config.model_dump(mode="json"), torch.float32)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny upsampler as an ONNX file, for the prompt "a dog" and the seed 3."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(load_model(str(tiny_weights)), "tiny.safetensors", path, "a dog", 3)
    return path


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of untrained weights of the tiny base model, 16 px."""
    torch.manual_seed(0)
    config = load_base_config(ROOT / "configs" / "base_tiny.toml").generator
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_weights(path, Generator(config).state_dict(), "base", config.model_dump(mode="json"), torch.float32)
    return path


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five smooth 96x80 pictures with a captions.jsonl, one of them in the validation split."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(5):
        rng = np.random.default_rng(i)
        small = Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8))
        small.resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        rows.append({"file": f"{i}.png", "captions": [f"picture {i}"], "split": "val" if i == 4 else "train"})
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def lpips_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random backbone weights, as torchvision's cannot be downloaded in a test."""
    import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("lpips") / "features.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of open_clip and a local file of its weights, as --clip takes them."""
    folder = tmp_path_factory.mktemp("clip")
    path = folder / "gigasr-test-clip.json"
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}), encoding="utf-8")
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(path.stem).state_dict(), folder / "weights.pt")
    return f"{path.stem}:{folder / 'weights.pt'}"


@pytest.fixture(scope="session")
def basicsr() -> ModuleType:
    """The reference for PSNR, SSIM and NIQE, where the extra gigasr[eval] is installed."""
    try:
        return metrics.import_basicsr()
    except ImportError as error:
        pytest.skip(str(error))
