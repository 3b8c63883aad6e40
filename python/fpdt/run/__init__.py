"""Running a plan on one rank."""
