"""Runs on hardware that is not here: their memory, what they exchange, and how long they take."""
