"""The CLIP score is the cosine of the image and "A photo depicts" the prompt, by open_clip's own preprocessing."""

from pathlib import Path

import open_clip
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from gigasr.metrics import ClipScore


def test_the_score_is_open_clips_cosine_with_the_papers_prefix(tiny_clip: str) -> None:
    name, path = tiny_clip.split(":", 1)
    model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=path)
    model.eval()
    image = torch.rand(3, 40, 60)
    seen = model.encode_image(prepare(to_pil_image((image * 255).round().byte()))[None])
    said = model.encode_text(open_clip.get_tokenizer(name)(["A photo depicts a cat"]))
    assert ClipScore(tiny_clip)(image, "a cat") == pytest.approx(torch.cosine_similarity(seen, said).item(), abs=1e-6)


def test_a_prompt_too_long_is_cut_not_refused(tiny_clip: str) -> None:
    score = ClipScore(tiny_clip)
    assert -1 <= score(torch.rand(3, 32, 32), "word " * 500) <= 1


def test_an_unknown_model_is_one_clear_line() -> None:
    for wrong in ("nonsense:openai", "RN50", "RN50:"):
        with pytest.raises(ValueError, match=rf"clip: expected MODEL:WEIGHTS .* got '{wrong}'"):
            ClipScore(wrong)


def test_a_file_that_holds_no_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="clip: expected the weights"):
        ClipScore(f"RN50:{tmp_path / 'junk.pth'}")


def test_weights_that_cannot_be_fetched_are_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"clip: expected the weights RN50:yfcc15m, .* or give a file .* RN50:FILE"):
        ClipScore("RN50:yfcc15m")
