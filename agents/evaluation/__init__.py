"""Evaluation: which episodes are judged, how they are run, and what is said about them."""
