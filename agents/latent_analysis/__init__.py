"""What the latents of an agent tell of the context: probes and projections of recorded and imagined states."""
