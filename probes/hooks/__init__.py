"""Probes within a training loop, and the way from there to the sinks."""

from trainscope.probes.hooks.hook import ProbeHook

__all__ = ["ProbeHook"]
