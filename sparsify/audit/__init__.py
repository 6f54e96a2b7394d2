"""How far a candidate model has drifted from its base, where, and whether that is allowed. Knows nothing of passes."""

from __future__ import annotations

from sparsify.audit.attribution import Attribution, LayerDrift
from sparsify.audit.compare import audit
from sparsify.audit.metrics import Estimate
from sparsify.audit.report import DriftReport, OutputDrift, Verdict
from sparsify.audit.usermetrics import UserMetric

__all__ = ["Attribution", "DriftReport", "Estimate", "LayerDrift", "OutputDrift", "UserMetric", "Verdict", "audit"]
