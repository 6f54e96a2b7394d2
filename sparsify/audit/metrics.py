"""What the metrics mean. b and c are one output of base and candidate, d = c - b, i counts samples, n of them.

All float outputs (computed in float64):

    cosine          mean over i of  <b_i, c_i> / (|b_i| |c_i|);   1 where d_i = 0, 0 where only one of the two is 0
    sqnr_db         10 log10(sum_i |b_i|^2 / sum_i |d_i|^2);      inf where d = 0
    relative_l2     sqrt(sum_i |d_i|^2 / sum_i |b_i|^2);          0 where d = 0, inf where only b = 0
    max_abs         max over i and elements of |d|
    mean_abs        mean over elements of |d|

By the kind of the output (`sparsify.audit.kinds`). Rows are the vectors along the last axis, p and q the distributions
of a row in base and candidate: softmax of logits, or probabilities made to sum to 1.

    top1_agreement       rows whose argmax is equal / rows; of equal largest elements the first counts
    flips                1 - top1_agreement
    top5_agreement       share of each row's five largest that both have, mean over rows; more than 5 classes only
    kl_divergence        mean over rows of  KL(p || q) = sum_j p_j ln(p_j / q_j),  nats
    js_divergence        mean over rows of  (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2,  nats, at most ln 2
    token_agreement      top1_agreement over the tokens that the attention mask does not hide
    perplexity_ratio     exp(mean over tokens of ln p_t - ln q_t), t the id that follows in the feed: perplexity of the
                         candidate over that of the base
    neighbour_agreement  mean over i of  |N_k(b_i) & N_k(c_i)| / k,  N_k the k = 10 samples of largest cosine to it
    psnr_db              20 log10(R) + 10 log10(elements / sum |d|^2), R = max b - min b over all samples
    box_iou              mean over boxes of intersection / union of box j in base and box j in candidate; equal boxes 1

All other outputs (integers, bools, strings):

    agreement       elements that are equal / elements

Elements that are NaN or infinite in both, and the same, are left out of the float sums. Any other NaN
or infinity, in either, is a mismatch: cosine is then NaN, errors and divergences are inf, sqnr_db is -inf,
and the audit fails whatever the budget. A logit of -inf in both is a probability of 0.

Each sample leaves one row of sums behind (`Sum`) and its outputs are dropped, so memory does not grow with them; of
embeddings up to 64 MiB are kept for their neighbours.
"""

from __future__ import annotations

from sparsify.audit.measures.blocks import Rows, sums
from sparsify.audit.measures.estimate import CONFIDENCE, Estimate, unseen_share
from sparsify.audit.measures.intervals import intervals, measurable
from sparsify.audit.measures.table import Floats, Sum, comparable, is_float, relative_l2

__all__ = [
    "CONFIDENCE",
    "Estimate",
    "Floats",
    "Rows",
    "Sum",
    "comparable",
    "intervals",
    "is_float",
    "measurable",
    "relative_l2",
    "sums",
    "unseen_share",
]
