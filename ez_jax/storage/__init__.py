"""The files of a run: folder, lock, metrics, checkpoints, journal of the replay, crash bundles."""
