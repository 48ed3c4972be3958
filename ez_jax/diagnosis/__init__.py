"""Diagnosis of the machine, the switches, a crashed update, a game."""
