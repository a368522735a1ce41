"""Speed and scale, measured against a floor and against the authors' code."""
