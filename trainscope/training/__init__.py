"""Schedules and the training loop."""
