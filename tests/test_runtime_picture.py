"""Pictures as bytes: what is read, how it is turned and sized, and what is refused before it costs anything."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from ingle.convert.errors import BadRequest
from ingle.runtime import picture
from ingle.runtime.llama.fitting import fitted, row_limits, smart_size
from ingle.runtime.picture import Picture
from PIL import Image
from seeing import golden

QWEN: dict[str, Any] = {
    "clip.projector_type": "qwen2.5vl_merger", "clip.vision.patch_size": 14,
    "clip.vision.image_min_pixels": 56 * 56, "clip.vision.image_max_pixels": 28 * 28 * 1280,
}  # fmt: skip


def image(width: int = 6, height: int = 4, mode: str = "RGB") -> Image.Image:
    values = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3) * 3
    return Image.fromarray(values).convert(mode)


def saved(given: Image.Image, kind: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    given.save(out, kind, **settings)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "settings"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_pixels_come_row_by_row(kind: str, settings: dict[str, Any]) -> None:
    found = picture.decode(saved(image(), kind, **settings), "here")
    assert (found.width, found.height) == (6, 4)
    np.testing.assert_array_equal(np.frombuffer(found.rgb, np.uint8).reshape(4, 6, 3), np.asarray(image()))


def test_a_jpeg_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    found = np.frombuffer(picture.decode(saved(flat, "JPEG", quality=95), "here").rgb, np.uint8).reshape(-1, 3)
    assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_kinds_of_pixels_become_red_green_and_blue(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    given = saved(image(mode=mode), kind)
    found = picture.decode(given, "here")
    with Image.open(io.BytesIO(given)) as again:
        assert found.rgb == again.convert("RGB").tobytes()


def test_a_picture_taken_with_a_turned_camera_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    found = picture.decode(saved(image(), "PNG", exif=exif), "here")
    assert (found.width, found.height) == (4, 6)
    assert found.rgb == image().transpose(Image.Transpose.ROTATE_270).tobytes()


def claiming(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


FRAMES = [image(), image(6, 4).transpose(Image.Transpose.ROTATE_180)]
REFUSED = [
    (b"", "format is not known"),
    (b"\x89PNG\r\n\x1a\n", "no picture that can be read"),
    (saved(image(), "PNG")[:50], "no picture that can be read"),
    (saved(image(64, 64), "JPEG")[:500], "no picture that can be read"),
    (saved(image(), "GIF"), "format is not known"),
    (saved(image(), "BMP"), "format is not known"),
    (saved(image(), "TIFF"), "format is not known"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "format is not known"),
    (claiming(50_000, 50_000), "pixels"),
    (claiming(2**31 - 1, 1), "pixels|narrow|read"),
    (claiming(7072, 7072), "50,013,184|pixels"),
    (claiming(4020, 20), "too narrow"),
    (claiming(0, 5), "no picture"),
    (saved(Image.new("I;16", (5, 5)), "PNG"), "more than 8 bits"),
    (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), "2 frames"),
    (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "2 frames"),
    (bytes(picture.MOST_BYTES + 1), "16,777,216"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_anything_else_is_refused_before_it_is_decoded(data: bytes, message: str) -> None:
    picture.decode(saved(image(), "PNG"), "warm")
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=message) as caught:
            picture.decode(data, "messages[3]")
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.param == "messages[3]"
    assert caught.value.message.startswith("messages[3]: ")


@pytest.mark.parametrize(("width", "height", "wide", "high"), golden("qwen2_5_vl")["sizes"])
def test_qwen_looks_at_the_sizes_that_transformers_looks_at(width: int, height: int, wide: int, high: int) -> None:
    assert smart_size(width, height, QWEN) == (wide, high)


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    given = Picture(56, 56, bytes(56 * 56 * 3))
    assert fitted(given, QWEN, "here") is given


def test_gemma_stretches_and_smolvlm_does_not() -> None:
    given = Picture(6, 4, image().tobytes())
    gemma: dict[str, Any] = {"clip.projector_type": "gemma3", "clip.vision.image_size": 8}
    smolvlm: dict[str, Any] = {"clip.projector_type": "idefics3", "clip.vision.preproc_image_size": 64}
    stretched = fitted(given, gemma, "here")
    assert (stretched.width, stretched.height) == (8, 8)
    assert stretched.rgb == image().resize((8, 8), Image.Resampling.BILINEAR).tobytes()
    assert fitted(given, smolvlm, "here") is given


def test_a_picture_of_which_no_line_would_be_left_is_refused() -> None:
    smolvlm: dict[str, Any] = {"clip.projector_type": "idefics3", "clip.vision.preproc_image_size": 64}
    with pytest.raises(BadRequest, match="too narrow"):
        fitted(Picture(130, 2, bytes(780)), smolvlm, "here")


def test_rows_are_limited_for_towers_of_any_size_only() -> None:
    assert row_limits(QWEN) == (4, 1280)
    assert row_limits({"clip.projector_type": "gemma3"}) == (-1, -1)
    assert row_limits({**QWEN, "clip.vision.image_max_pixels": 1 << 30})[1] == 4096
