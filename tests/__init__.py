"""A regular package, so that a dependency which installs one of the same name cannot stand before it."""
