"""Run the jobs of a sweep in processes of their own: on this machine, and on a cluster."""
