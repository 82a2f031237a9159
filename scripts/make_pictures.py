"""Make the pictures of the documentation from the bundled models: python scripts/make_pictures.py KIND"""

from pathlib import Path

import click
from PIL import Image, ImageDraw

from gigasr import Picture, SuperResolver, read_image
from gigasr.files.image_writer import to_pil
from gigasr_base.pipeline import TextToImage, upscale_image

ROOT = Path(__file__).parents[1]
GAP, LINE = 4, 18  # px; between tiles, and of a line of text
PHOTOS = {"colosseum": (296, 56), "hippo": (96, 272)}  # of examples/ -> left, top of the crop at 8 times, px
CROP = 380  # px


def sheet(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay captioned tiles out, row by row."""
    widths = [max(row[i][1].width for row in rows) for i in range(len(rows[0]))]
    heights = [max(tile.height for _, tile in row) + LINE for row in rows]
    page = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), sum(heights) + GAP * (len(rows) - 1)), "white")
    draw = ImageDraw.Draw(page)
    for i, row in enumerate(rows):
        top = sum(heights[:i]) + GAP * i
        for j, (caption, tile) in enumerate(row):
            left = sum(widths[:j]) + GAP * j
            page.paste(tile, (left, top))
            draw.text((left + 2, top + tile.height + 2), caption, fill="black")
    return page


def before_after() -> Image.Image:
    """Crops of the example photos, upscaled eight times by bicubic and by upsampler_lite."""
    resolver, rows = SuperResolver.from_pretrained(device="cpu"), []
    for name, (left, top) in PHOTOS.items():
        small = read_image(ROOT / "examples" / f"{name}.png")
        prompt = (ROOT / "examples" / f"{name}.txt").read_text(encoding="utf-8").strip()
        large = to_pil(resolver.upscale(small, prompt, scale=8))
        smooth = to_pil(small).resize(large.size, Image.Resampling.BICUBIC)
        box = (left, top, left + CROP, top + CROP)
        rows.append([("bicubic", smooth.crop(box)), ("gigasr", large.crop(box))])
    return sheet(rows)


def chain() -> Image.Image:
    """A text at 64, 512 and 4096 px: the whole picture, and at 4096 px its middle pixel by pixel."""
    prompt = "a red apple, 3d style"
    base_model, resolver = TextToImage.from_pretrained(device="cpu"), SuperResolver.from_pretrained(device="cpu")
    image = base_model.generate([prompt], [0])[0]
    small = to_pil(Picture(image)).resize((256, 256), Image.Resampling.NEAREST)
    half = to_pil(upscale_image(image, (512, 512), resolver, prompt)).resize((256, 256), Image.Resampling.LANCZOS)
    large = to_pil(upscale_image(image, (4096, 4096), resolver, prompt))
    whole = large.resize((256, 256), Image.Resampling.LANCZOS)
    middle = large.crop((1920, 1920, 2176, 2176))
    captions = ("64 px", "512 px", "4096 px", "its middle, 256 px")
    return sheet([list(zip(captions, (small, half, whole, middle), strict=True))])


def mixing() -> Image.Image:
    """What a prompt draws (rows) in the styles of others (columns), and the way from one prompt to another."""
    base_model, rows = TextToImage.from_pretrained(device="cpu"), []
    things = ("a red apple", "a house", "a cat face")
    styles = ("3d style", "flat style", "line drawing")
    for thing in things:
        prompt = f"{thing}, {styles[0]}"
        images = [(prompt, base_model.generate([prompt], [0])[0])]
        images += [
            (f"+ {style}", base_model.mix(prompt, f"{thing}, {style}", [0], mix_at=16)[0]) for style in styles[1:]
        ]
        images += [("", frame) for frame in base_model.interpolate(prompt, f"a green pear, {styles[0]}", 4)[1:]]
        rows.append([(caption, to_pil(Picture(image)).resize((128, 128))) for caption, image in images])
    return sheet(rows)


KINDS = {"before_after": before_after, "chain": chain, "mixing": mixing}


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
def main(kinds: tuple[str, ...]) -> None:
    """Write docs/images/KIND.jpg; all of them where none is named."""
    for kind in kinds or KINDS:
        target = ROOT / "docs" / "images" / f"{kind}.jpg"
        KINDS[kind]().save(target, quality=85)
        click.echo(f"{target}  {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
