"""Images as data URIs, which a page can show without loading anything."""

import base64
import hashlib
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from ez_jax.envs.observations import BadPicture

LONGEST_SIDE = 320  # pixels; larger images are shrunk
LOSSLESS_UP_TO = 1.3  # times the size of lossy images: flat colours stay sharp
QUALITY = 80
_SAMPLES = 8


class Film:
    """The images of an episode, each kept once, small and compressed to save memory."""

    def __init__(self) -> None:
        """Without pictures."""
        self.index: list[int] = []  # which of the kept images was seen at each time
        self._places: dict[bytes, int] = {}
        self._packed: list[bytes] = []
        self._shape: tuple[int, ...] = ()  # of the original images
        self._size = (0, 0)  # width and height of the kept images

    def add(self, picture: np.ndarray) -> None:
        """Append an image u8[H, W, 3].

        Raises:
          BadPicture: it has another shape than those before.
        """
        if self.index and picture.shape != self._shape:
            raise BadPicture("render() returned images of different sizes")
        self._shape = picture.shape
        digest = hashlib.blake2b(np.ascontiguousarray(picture).data).digest()
        if digest not in self._places:
            image = Image.fromarray(picture)
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            self._size = image.size
            self._places[digest] = len(self._packed)
            self._packed.append(zlib.compress(image.tobytes(), level=1))
        self.index.append(self._places[digest])

    def encode(self) -> dict[str, Any]:
        """WebP as data URIs: `images`, each once, `index`, which one at each time, and their size.

        Lossless if that is not much larger, as for drawn games; either all or none.
        """
        samples = self._packed[:: max(1, len(self._packed) // _SAMPLES)]
        exact, lossy = (sum(len(self._webp(x, way)) for x in samples) for way in (True, False))
        is_exact = exact <= LOSSLESS_UP_TO * lossy
        width, height = self._size
        return {
            "images": [
                f"data:image/webp;base64,{base64.b64encode(self._webp(x, is_exact)).decode()}"
                for x in self._packed
            ],
            "index": self.index,
            "width": width,
            "height": height,
        }

    def _webp(self, packed: bytes, lossless: bool) -> bytes:
        file = io.BytesIO()
        image = Image.frombytes("RGB", self._size, zlib.decompress(packed))
        image.save(file, "WEBP", lossless=lossless, quality=QUALITY, method=4)
        return file.getvalue()
