"""Training: environments feed replay, replay feeds the agent, every epoch ends where a run can be resumed."""
