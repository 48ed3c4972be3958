import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from ez_jax.config import BadInput
from ez_jax.evaluation.video import write_video


def moving_square(length, height, width, channels):
    frames = np.full((length, height, width, channels), 20, np.uint8)
    for t in range(length):
        frames[t, 2:5, t : t + 3] = 230
    return frames


@pytest.mark.parametrize(("shape", "size"), [((10, 10, 1), 320), ((84, 84, 1), 336)])
def test_mp4_is_enlarged_and_shows_the_frames(tmp_path, shape, size):
    path = write_video(tmp_path / "new" / "a.mp4", moving_square(6, *shape), fps=10)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["size"] == (size, size)
    assert "h264" in meta["codec"]
    assert meta["pix_fmt"].startswith("yuv420p")
    frames = [np.frombuffer(raw, np.uint8).reshape(size, size, 3) for raw in reader]
    assert len(frames) == 6
    factor = size // shape[0]
    assert frames[4][3 * factor, 5 * factor].min() > 200
    assert frames[4][8 * factor, 8 * factor].max() < 50


def test_odd_sizes_become_even(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(2, 321, 333, 3))
    assert next(imageio_ffmpeg.read_frames(str(path)))["size"] == (334, 322)


def test_gif(tmp_path):
    path = write_video(tmp_path / "a.gif", moving_square(4, 10, 12, 3), fps=10)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (4, (384, 320), 100)


def test_other_names_and_shapes_are_refused(tmp_path):
    with pytest.raises(BadInput, match="mp4 or"):
        write_video(tmp_path / "a.avi", moving_square(2, 10, 10, 3))
    with pytest.raises(ValueError, match="u8"):
        write_video(tmp_path / "a.mp4", np.zeros((2, 10, 10, 3), np.float32))
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "a.mp4", np.zeros((0, 10, 10, 3), np.uint8))
