"""Where drift arises: each node of the candidate fed the base's values, against what it has piled up so far.

For a value v that both models compute (`matching` says which those are), as float tensors of one shape:

    accumulated   relative L2 of v in the whole candidate against v in the base
    own           relative L2 of v against the base when the candidate's nodes that compute v are given the
                  base's values; where those are missing from the base, the nodes that compute them from
                  values that it has are run too, so the row then stands for that small group of nodes
    share         own^2 / sum of own^2 over all rows: what part of the error that nodes add is added here. Were
                  errors of different nodes uncorrelated and passed on unchanged, this would be the part of the drift
    effect        relative L2 of the base's outputs when it is given the candidate's v of `own` in the place of its own:
                  the drift of a model in which nothing else was changed. The largest over the outputs; for an output
                  that is not float, the share of elements that differ. Measured for the rows of largest `own` alone

The L2 are sqrt(sum |d|^2 / sum |b|^2) over all feeds, as in `sparsify.audit.metrics`. `effect` is what tells a fault
from a difference that nobody downstream looks at, such as another large number in masked places.
Nodes inside subgraphs and functions count with the node that holds them. Nodes that depend on no input have no row.
"""

from __future__ import annotations

from sparsify.audit.attribution.layers import MEMORY, THRESHOLD, Attribution, LayerDrift, drift_of_layers

__all__ = ["MEMORY", "THRESHOLD", "Attribution", "LayerDrift", "drift_of_layers"]
