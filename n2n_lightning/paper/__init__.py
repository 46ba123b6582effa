"""The experiments of the Noise2Noise paper: jobs, table, pictures."""
