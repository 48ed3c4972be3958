"""EfficientZero: model, search, replay, reanalysis, targets, losses and the update.

Nothing here reads files, prints or knows a game.
"""
