"""Protocols that score an encoder, and the intervals of those scores."""
