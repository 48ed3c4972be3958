"""Replay: a ring of rows on the device, prioritised sampling, frames in host memory."""
