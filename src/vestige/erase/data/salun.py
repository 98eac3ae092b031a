"""SalUn (Fan et al. 2024, arXiv 2310.12508): random labels on the weights that the forgotten images pull at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.erase.data.random_label import check_weight, relearn
from vestige.erase.data.saliency import saliency_mask
from vestige.erase.data.teacher import Target
from vestige.erase.driver import Driver
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput


@dataclass(frozen=True)
class SalUn(Eraser):
    """Relearn forgotten images as something else, moving only the salient weights.

    With the base's weights ``theta_0`` the mask is
    ``m = 1[|grad E_forget ||eps - eps_hat(x_t, c; theta_0)||^2| >= gamma]``, where ``gamma``
    lets through exactly the asked share of all weights. Under it the loss
    ``L = E_forget ||eps_f - eps_hat||^2 + alpha E_retain ||eps - eps_hat||^2`` is descended;
    the weights outside the mask keep their bits.

    ``eps_f`` is the frozen base's answer under another class, drawn for each sample among
    the classes of retained images, or uniform noise in [0, 1] where there are no labels.
    A step costs seven forward-equivalents, six with noise; the mask costs three for each of
    its samples, once.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    share : of all weights that may move, in (0, 1].
    mask_samples : noisy images from which the mask is found, over all forgotten ones.
    retain_weight : alpha, for losses that are means over pixels.
    target : what forgotten images are to be predicted as; see `EraseDiff`.

    Source: arXiv 2310.12508, equations 3 to 6.
    """

    claim: ClassVar[str] = "erases images by relearning them as something else with their most salient weights alone"
    source: ClassVar[str] = "Fan et al. 2024, arXiv 2310.12508"

    share: float = 0.5
    mask_samples: int = 512
    retain_weight: float = 3.0
    target: Target = Target.AUTO

    def __post_init__(self) -> None:
        check_weight("retain_weight", self.retain_weight)
        if not 0 < self.share <= 1 or self.mask_samples < 1:
            raise InvalidInput(
                f"share={self.share}, mask_samples={self.mask_samples}.",
                expected="a share in (0, 1] and at least one sample.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Find the mask, then run the loop; see the class."""
        mask, spent = saliency_mask(
            driver.base, driver.module, request.forget, self.share, self.mask_samples, driver.context
        )
        cost = relearn(driver, request, self.target, self.retain_weight, mask)
        return {
            **cost,
            "forward_equivalents": cost["forward_equivalents"] + spent,
            "mask_forward_equivalents": float(spent),
        }
