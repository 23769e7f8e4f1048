"""Training: environments feed replay, replay feeds the agent, and every epoch ends on a boundary that can be resumed."""
