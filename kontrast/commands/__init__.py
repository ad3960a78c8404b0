"""Commands: one frozen dataclass and one function each; the command line and the Python calls both run these."""
