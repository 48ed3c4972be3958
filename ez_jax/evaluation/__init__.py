"""Evaluation: full episodes, scores, published references, videos, trained agents."""
