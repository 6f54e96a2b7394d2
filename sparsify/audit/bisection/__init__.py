"""Which of the changes between two models break a budget: the smallest sets of them, found by measured audits.

Values that both models compute (`audit.attribution.matching` says which) are cut points. Between them, what computes a
value may be taken from either model, so any choice of changes gives a model that runs (`hybrids`). What is the same in
both is no change; nodes that were fused, split or replaced by others lie between two cut points and go together, as do
a product and its bias (`units`). Sets are found by delta debugging (`search`).
"""

from __future__ import annotations

from sparsify.audit.bisection.find import Bisection, Guilty, bisect
from sparsify.audit.bisection.units import Unit

__all__ = ["Bisection", "Guilty", "Unit", "bisect"]
