"""Pictures as data URIs, which a page can show without loading anything."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

LONGEST_SIDE = 320  # pixels; larger pictures are shrunk
LOSSLESS_UP_TO = 1.3  # times the size of the lossy ones: flat colours stay sharp
QUALITY = 80
_SAMPLES = 8


def encode(pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    """WebP of pictures u8[H, W, 3]: `images`, each once, and `index`, which of them at each time.

    Lossless where that is not much larger, as with drawn games; of all or of none.
    """
    if not pictures:
        return {"images": [], "index": [], "width": 0, "height": 0}
    places: dict[bytes, int] = {}
    index = [places.setdefault(picture.tobytes(), len(places)) for picture in pictures]
    firsts = [index.index(place) for place in range(len(places))]
    images = [_shrunk(pictures[i]) for i in firsts]
    samples = images[:: max(1, len(images) // _SAMPLES)]
    exact, lossy = (sum(len(_webp(x, one)) for x in samples) for one in (True, False))
    is_exact = exact <= LOSSLESS_UP_TO * lossy
    uris = [f"data:image/webp;base64,{_base64(_webp(image, is_exact))}" for image in images]
    width, height = images[0].size
    return {"images": uris, "index": index, "width": width, "height": height}


def _shrunk(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image


def _webp(image: Image.Image, lossless: bool) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    return file.getvalue()


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
