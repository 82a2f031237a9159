"""The CLIP score is the cosine of the image and "A photo depicts" the prompt, by open_clip's own preprocessing."""

import json

import open_clip
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from gigasr.clip_score import ClipScore

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of open_clip and a local file of its weights."""
    folder = tmp_path_factory.mktemp("clip")
    path = folder / "gigasr-test-clip.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(path.stem).state_dict(), folder / "weights.pt")
    return f"{path.stem}:{folder / 'weights.pt'}"


def test_the_score_is_open_clips_cosine_with_the_papers_prefix(source: str) -> None:
    name, path = source.split(":", 1)
    model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=path)
    model.eval()
    image = torch.rand(3, 40, 60)
    seen = model.encode_image(prepare(to_pil_image((image * 255).round().byte()))[None])
    said = model.encode_text(open_clip.get_tokenizer(name)(["A photo depicts a cat"]))
    assert ClipScore(source)(image, "a cat") == pytest.approx(torch.cosine_similarity(seen, said).item(), abs=1e-6)


def test_a_prompt_too_long_is_cut_not_refused(source: str) -> None:
    score = ClipScore(source)
    assert -1 <= score(torch.rand(3, 32, 32), "word " * 500) <= 1


def test_an_unknown_model_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"clip: expected MODEL:WEIGHTS .* got 'nonsense:openai'"):
        ClipScore("nonsense:openai")
