"""What single steps cost: for comparing two revisions on one machine, and nothing else."""
