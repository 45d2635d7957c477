"""Many videos from one file of jobs: on this machine, on a Ray cluster, or on fal."""
