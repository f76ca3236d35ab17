"""Make the model you run lean, prove that it still does your job, and release it."""
