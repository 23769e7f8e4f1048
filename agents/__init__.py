"""Behaviour, experience and training on top of world models."""
