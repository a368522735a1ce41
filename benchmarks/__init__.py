"""Speed, memory and endurance, measured against floors and against the authors' code."""
