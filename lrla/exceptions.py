"""Warnings and errors of lrla's own.  Not converging is scikit-learn's `ConvergenceWarning`."""


class RankDeficientWarning(UserWarning):
    """The data has fewer independent directions than the rank that was asked for.

    The result is complete all the same: trailing singular values are exactly zero, and the factors stay orthonormal.
    """


class SketchBoundaryWarning(UserWarning):
    """The best penalty lies at or below the smallest that sketches of this size imply: larger ones may predict better."""


class NotIdentifiableWarning(UserWarning):
    """Fewer entries are observed than a matrix of that rank has degrees of freedom: many such matrices fit equally well."""


class UnobservedWarning(UserWarning):
    """Rows or columns without a single observed entry; what is said of them is said by the others."""
