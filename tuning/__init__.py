"""Studies over agents: search spaces, schedules, reports, and the command line."""
