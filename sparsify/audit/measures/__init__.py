"""The arithmetic behind `sparsify.audit.metrics`: pairs of outputs become sums, sums become figures with intervals."""
