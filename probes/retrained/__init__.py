"""Copies of a network that are retrained at several learning rates, and their scores."""
