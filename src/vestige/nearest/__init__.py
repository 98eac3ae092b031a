"""The exact distance engine over uint8 images and float32 embeddings, and the near-duplicate graph.

Every function is pure, takes numpy arrays and gives numpy arrays and works within ``budget`` bytes. Distances of images
are exact integers, the same for every budget and device; a radius is root mean square with pixels in [0, 1].
Distances of embeddings are those of float64 differences.
"""

from vestige.nearest.calibrated import Calibrated, calibrated
from vestige.nearest.cliques import Clique, Cliques, Membership, cliques, in_clique, maximal_cliques
from vestige.nearest.clusters import cluster_sizes, clusters, components
from vestige.nearest.embeddings import Metric, NearestEmbeddings, Recall, embeddings_within, nearest_embeddings
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
from vestige.nearest.tiled import Stage, TiledPairs, tiled_distance, tiled_pairs_within, tiled_within

__all__ = [
    "BUDGET",
    "Block",
    "Calibrated",
    "Clique",
    "Cliques",
    "Membership",
    "Metric",
    "NearestEmbeddings",
    "Neighbours",
    "Recall",
    "Stage",
    "TiledPairs",
    "blocks",
    "calibrated",
    "cliques",
    "cluster_sizes",
    "clusters",
    "components",
    "count_within",
    "distance2_of_pairs",
    "embeddings_within",
    "in_clique",
    "maximal_cliques",
    "nearest",
    "nearest_embeddings",
    "pairs_within",
    "pairs_within_two",
    "radius_limit",
    "rms",
    "tiled_distance",
    "tiled_pairs_within",
    "tiled_within",
    "topk",
]
