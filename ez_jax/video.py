"""Writes episodes as files that any player shows: mp4 (H.264) or gif, by the name of the file."""

from pathlib import Path

import numpy as np

from ez_jax.config import BadInput

MIN_SIZE = 320  # pixels of the shorter side, below which frames are enlarged


def write_video(path: str | Path, frames: np.ndarray, fps: float = 15.0) -> Path:
    """Write frames u8[T, H, W, C], C of 1 (grey) or 3 (RGB), to `path`, an .mp4 or a .gif.

    Small frames are enlarged by a whole factor without smoothing, so that pixels stay visible.

    Returns:
      The absolute path.

    Raises:
      BadInput: the name ends neither in .mp4 nor in .gif.
    """
    path = Path(path).absolute()
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise BadInput(f"a video file ends in .mp4 or .gif, not in {path.suffix!r}: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix](path, _watchable(frames), fps)
    return path


def _watchable(frames: np.ndarray) -> np.ndarray:
    """Enlarged RGB frames of even height and width, as H.264 with yuv420p needs: u8[T, H, W, 3]."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be u8[T, H, W, 1 or 3], not {frames.dtype}{frames.shape}")
    if not frames.size:
        raise ValueError("a video needs at least one frame")
    factor = -(-MIN_SIZE // min(frames.shape[1:3]))
    large = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    odd = [(0, size % 2) for size in large.shape[1:3]]
    even = np.pad(large, [(0, 0), *odd, (0, 0)], mode="edge")
    return np.ascontiguousarray(np.broadcast_to(even, (*even.shape[:3], 3)))


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    # Imported late: only whoever asks for a video needs the ffmpeg wheel.
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        output_params=["-movflags", "+faststart"],  # a browser may start before the end
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(frame)
    finally:
        writer.close()


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    milliseconds = round(1000 / fps)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)
