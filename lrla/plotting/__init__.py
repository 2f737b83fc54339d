"""Figures of what the estimators know about themselves; they need matplotlib, the extra `plot`."""

from lrla.plotting._completion_path_display import CompletionPathDisplay
from lrla.plotting._risk_display import RiskDisplay

__all__ = ["CompletionPathDisplay", "RiskDisplay"]
