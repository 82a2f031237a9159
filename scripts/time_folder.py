"""What a folder run costs beyond the network: seconds of a run over JPEGs as a share of those of the bare pipeline.

python scripts/time_folder.py --files 10 --width 96 --height 64 --clock cpu
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gigasr.evaluation.bench import CLOCKS, run_pipeline
from gigasr.files.images import read_image
from gigasr.folders.batch import Run
from gigasr.folders.plan import Outputs, find_images, plan_jobs
from gigasr.folders.worker import Settings

ROOT = Path(__file__).parents[1]


def make_folder(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEGs of a photo's parts; size is (width, height), px."""
    photo = Image.open(ROOT / "examples" / "colosseum.png").convert("RGB")
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:03}.jpg" for number in range(count)]
    for path in paths:
        left, top = (int(rng.integers(0, max(a - b, 0) + 1)) for a, b in zip(photo.size, size, strict=True))
        photo.crop((left, top, left + size[0], top + size[1])).save(path, quality=95)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--width", type=int, default=96, help="px")
    parser.add_argument("--height", type=int, default=64, help="px")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--format", default="png")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name, "in")).mkdir()
        paths = make_folder(folder, options.files, (options.width, options.height))
        jobs = plan_jobs(find_images([folder]), Outputs(Path(name, "out"), suffix="." + options.format))
        run = Run(jobs, Settings(overwrite=True), lambda work: None)
        resolver, pictures = run.worker.load(), [read_image(path) for path in paths]
        run.start()  # folds the network
        times: dict[str, list[float]] = {"pipeline": [], "folder": []}
        for _ in range(options.repeats):
            start = clock()
            for picture in pictures:
                run_pipeline(resolver, picture)
            middle = clock()
            run.start()
            times["pipeline"].append(middle - start)
            times["folder"].append(clock() - middle)
    medians = {kind: statistics.median(seconds) for kind, seconds in times.items()}
    shares = sorted(a / b for a, b in zip(times["folder"], times["pipeline"], strict=True))
    print(f"{options.clock} seconds: pipeline {medians['pipeline']:.3f}, folder {medians['folder']:.3f}")
    print(f"share: median {statistics.median(shares):.3f}, from {shares[0]:.3f} to {shares[-1]:.3f}")


if __name__ == "__main__":
    main()
