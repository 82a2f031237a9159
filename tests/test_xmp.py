"""XMP and IPTC of files made by another library are kept where the output can carry them, and stay true."""

import logging
import struct
from pathlib import Path

import pytest
import pyvips
import tifffile
from picture_files import random_samples, vips_image
from PIL import Image

from gigasr.files.image_writer import write_image
from gigasr.files.images import read_image
from gigasr.files.xmp import update_xmp_size

HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" dc:title="Ölbäume"'
)
OLD = f"""{HEAD} tiff:Orientation="6" tiff:XResolution='72/1' exif:PixelXDimension="11">
<exif:PixelYDimension>9</exif:PixelYDimension><tiff:ResolutionUnit>2</tiff:ResolutionUnit><xmp:Rating>4</xmp:Rating>
<xmp:Thumbnails><rdf:Alt>old</rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
NEW = f"""{HEAD} tiff:Orientation="1" exif:PixelXDimension="11">
<exif:PixelYDimension>9</exif:PixelYDimension><xmp:Rating>4</xmp:Rating>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G" + b"\x1c\x02\x05\x00\x06Castle" + b"\x1c\x02\x19\x00\x05stone"


def make(path: Path, bits: int = 8) -> Path:
    """A file with XMP and IPTC."""
    image = vips_image(random_samples(3, bits), "srgb" if bits == 8 else "rgb16").copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", OLD.encode())
    block = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">L", len(IPTC)) + IPTC
    image.set_type(pyvips.GValue.blob_type, "iptc-data", block + bytes(len(IPTC) % 2))
    image.write_to_file(str(path))
    return path


def stored(path: Path, name: str) -> bytes | None:
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "")
    return image.get(name) if image.get_typeof(name) else None


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif", "16.png", "16.tif"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_xmp_goes_from_every_kind_to_every_kind(tmp_path: Path, name: str, suffix: str) -> None:
    source = make(tmp_path / name, 16 if name.startswith("16") else 8)
    write_image(tmp_path / f"out{suffix}", read_image(source))
    assert (stored(tmp_path / f"out{suffix}", "xmp-data") or b"").decode() == NEW


@pytest.mark.parametrize("suffix", [".gif", ".bmp"])
def test_a_format_without_room_for_it_is_written_without(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"out{suffix}", read_image(make(tmp_path / "a.jpg")))
    assert b"xmpmeta" not in (tmp_path / f"out{suffix}").read_bytes()


def make_tiff(path: Path, bits: int, order: str, is_numbers: bool) -> Path:
    """A TIFF with IPTC as bytes, or as numbers of four bytes, as some programs write it."""
    numbers = struct.unpack(f"{order}8L", IPTC.ljust(32, b"\0"))
    tag = (33723, "I", 8, numbers, True) if is_numbers else (33723, "B", len(IPTC), IPTC, True)
    tifffile.imwrite(path, random_samples(3, bits), photometric="rgb", byteorder=order, extratags=[tag])
    return path


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_numbers", [False, True])
def test_iptc_goes_from_tiff_to_jpeg_and_tiff(tmp_path: Path, bits: int, order: str, is_numbers: bool) -> None:
    picture = read_image(make_tiff(tmp_path / "a.tif", bits, order, is_numbers))
    assert (picture.iptc or b"").rstrip(b"\0") == IPTC
    write_image(tmp_path / "out.jpg", picture)
    assert IPTC in (stored(tmp_path / "out.jpg", "iptc-data") or b"")
    write_image(tmp_path / "out.tif", picture)
    assert tifffile.TiffFile(tmp_path / "out.tif").pages[0].tags[33723].value.rstrip(b"\0") == IPTC


@pytest.mark.parametrize("bits", [8, 16])
def test_iptc_whose_bytes_are_swapped_is_left_out(tmp_path: Path, bits: int) -> None:
    swapped = struct.pack("<8L", *struct.unpack(">8L", IPTC.ljust(32, b"\0")))
    tag = (33723, "B", len(swapped), swapped, True)
    tifffile.imwrite(tmp_path / "a.tif", random_samples(3, bits), photometric="rgb", extratags=[tag])
    assert read_image(tmp_path / "a.tif").iptc is None


def test_iptc_goes_from_jpeg_to_jpeg_and_tiff(tmp_path: Path) -> None:
    picture = read_image(make(tmp_path / "a.jpg"))
    write_image(tmp_path / "out.jpg", picture)
    assert stored(tmp_path / "out.jpg", "iptc-data") == stored(tmp_path / "a.jpg", "iptc-data")
    write_image(tmp_path / "out.tif", picture)
    assert tifffile.TiffFile(tmp_path / "out.tif").pages[0].tags[33723].value == IPTC


def test_sizes_are_those_of_the_result() -> None:
    renewed = (update_xmp_size(OLD.encode(), (72, 88)) or b"").decode()
    assert renewed == NEW.replace('Dimension="11"', 'Dimension="88"').replace(">9<", ">72<")
    assert update_xmp_size(None, (1, 1)) is None


@pytest.mark.parametrize(
    "claim",
    [
        ' hdrgm:Version="1.0"',
        " GCamera:MotionPhoto='1'",
        ' GPano:ProjectionType="equirectangular" GPano:FullPanoWidthPixels="100"',
        "<GPano:CroppedAreaTopPixels>7</GPano:CroppedAreaTopPixels>",
        "<Container:Directory><rdf:Seq><rdf:li>10</rdf:li></rdf:Seq></Container:Directory>",
    ],
)
def test_what_is_true_of_the_old_file_alone_is_left_out(claim: str) -> None:
    assert update_xmp_size(f"<a{claim}/>".encode(), (1, 1)) in (b"<a/>", None)
    assert update_xmp_size(b'<a xmp:Rating="4"/>', (1, 1)) == b'<a xmp:Rating="4"/>'


def test_what_no_file_can_hold_is_told_and_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    long = OLD.replace("old", "o" * 10).replace("Ölbäume", "Ö" * 40_000)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp", xmp=long.encode())
    write_image(tmp_path / "out.jpg", read_image(tmp_path / "a.webp"))
    assert "XMP left out: expected at most 65502 bytes for JPEG" in caplog.text
    assert update_xmp_size("Ö".encode("utf-16"), (1, 1)) is None
    assert "expected UTF-8" in caplog.text


def test_a_hostile_packet_takes_no_time() -> None:
    for hostile in (
        "<xmp:Thumbnails>",
        ' tiff:Orientation="',
        "<exif:PixelXDimension>",
        "<hdrgm:Version>",
        "</xmp:Thumbnails>",
    ):
        text = hostile.encode() * 50_000
        assert len(update_xmp_size(text, (1, 1)) or b"") > 0
