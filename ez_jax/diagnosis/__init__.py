"""Finding out what is wrong: the machine, the switches, a crashed update, a game."""
