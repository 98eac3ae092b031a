"""The exact blocked distance engine over uint8 rows, its reductions, and the near-duplicate graph.

Every function is pure, takes numpy arrays and gives numpy arrays, works within ``budget`` bytes, and returns the same
integers for every budget and device. A radius or a distance is root mean square with pixels in [0, 1].
"""

from vestige.nearest.calibrated import Calibrated, calibrated
from vestige.nearest.cliques import Clique, Cliques, Membership, cliques, in_clique, maximal_cliques
from vestige.nearest.clusters import cluster_sizes, clusters, components
from vestige.nearest.exact import BUDGET, Block, blocks, distance2_of_pairs
from vestige.nearest.reduce import (
    Neighbours,
    count_within,
    nearest,
    pairs_within,
    pairs_within_two,
    radius_limit,
    rms,
    topk,
)

__all__ = [
    "BUDGET",
    "Block",
    "Calibrated",
    "Clique",
    "Cliques",
    "Membership",
    "Neighbours",
    "blocks",
    "calibrated",
    "cliques",
    "cluster_sizes",
    "clusters",
    "components",
    "count_within",
    "distance2_of_pairs",
    "in_clique",
    "maximal_cliques",
    "nearest",
    "pairs_within",
    "pairs_within_two",
    "radius_limit",
    "rms",
    "topk",
]
