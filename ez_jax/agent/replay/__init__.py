"""Replay: a ring of rows on the device, prioritised draws, frames in host memory."""
