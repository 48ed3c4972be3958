"""Writes episodes as videos: mp4 (H.264) or gif, by the name of the file."""

import subprocess
from pathlib import Path

import numpy as np

from ez_jax.config import BadInput

MIN_SIZE = 320  # pixels of the shorter side; smaller frames are enlarged


def write_video(path: str | Path, frames: np.ndarray, fps: float = 15.0) -> Path:
    """Write frames u8[T, H, W, C], C = 1 (grey) or 3 (RGB), to an .mp4 or .gif file.

    Small frames are enlarged by an integer factor without smoothing, so that pixels stay visible.

    Returns:
      The absolute path.

    Raises:
      BadInput: the name ends neither in .mp4 nor in .gif.
    """
    path = Path(path).absolute()
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise BadInput(f"a video file ends in .mp4 or .gif, not in {path.suffix!r}: {path}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be u8[T, H, W, 1 or 3], not {frames.dtype}{frames.shape}")
    if not frames.size:
        raise ValueError("a video needs at least one frame")
    path.parent.mkdir(parents=True, exist_ok=True)
    factor = -(-MIN_SIZE // min(frames.shape[1:3]))
    writers[path.suffix](path, frames, fps, factor)
    return path


def _write_mp4(path: Path, frames: np.ndarray, fps: float, factor: int) -> None:
    # Imported late: only videos need the ffmpeg wheel.
    import imageio_ffmpeg

    _, height, width, channels = frames.shape
    pixels = "gray" if channels == 1 else "rgb24"
    # yuv420p, the only format that every player supports, needs even sizes.
    enlarge = f"scale=iw*{factor}:ih*{factor}:flags=neighbor,pad=ceil(iw/2)*2:ceil(ih/2)*2"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-vf", enlarge, "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    command += ["-movflags", "+faststart", str(path)]  # a browser can start early
    # In its own session, so that ctrl-C lets the file be finished.
    done = subprocess.run(
        command,
        input=np.ascontiguousarray(frames).data,
        capture_output=True,
        start_new_session=True,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise OSError(f"ffmpeg could not write {path}: {reason}")


def _write_gif(path: Path, frames: np.ndarray, fps: float, factor: int) -> None:
    from PIL import Image

    size = (frames.shape[2] * factor, frames.shape[1] * factor)
    plain = frames[..., 0] if frames.shape[-1] == 1 else frames
    first, *rest = [Image.fromarray(f).resize(size, Image.Resampling.NEAREST) for f in plain]
    milliseconds = round(1000 / fps)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)
