"""EfficientZero: model, search, replay, reanalysis, targets, losses and the update.

Nothing here reads a file, prints a line or knows a game.
"""
