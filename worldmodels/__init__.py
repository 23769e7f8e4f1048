"""Learned simulators: encoders, recurrent state-space models, decoders, heads and their losses."""
