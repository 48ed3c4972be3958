"""The files of a run: folder, lock, metrics, checkpoints, replay journal, crash bundles."""
