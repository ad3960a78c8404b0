"""Training: one plain loop, and what watches, records and resumes it."""

from kontrast.train.fit import Fit, fit

__all__ = ["Fit", "fit"]
