"""Local intrinsic dimension from denoising errors alone.

At a small noise level the expected squared noise error of an optimal denoiser,
summed over pixels, is the dimension of the data manifold at the image: the part of the
noise that lies along the manifold cannot be told from signal (arXiv 2510.12975). A
perfectly memorized image is an atom of dimension 0; whatever the model fails to learn
adds to the estimate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dsm_dimension(errors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Dimension estimate of each row [rows]: the mean over times and draws of errors [rows, times, draws]."""
    return errors.astype(np.float64).mean(axis=(1, 2))
