"""The audit of a data set: what leaks through its split, which images are copies, what stands out."""
