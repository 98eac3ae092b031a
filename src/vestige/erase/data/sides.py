"""The two sides of a step: a batch of retained and one of forgotten images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.erase.data.teacher import Teacher, Unlearned
from vestige.erase.driver import Batch, Driver, draw_batch
from vestige.erase.request import Request


def pull(request: Request) -> npt.NDArray[np.float64] | None:
    """How often each forgotten row is drawn: in proportion to the square root of its copies, or all alike.

    What stood more often in the data sits deeper; in full proportion the rare ones would hardly be drawn.
    """
    return None if request.forget_copies is None else np.sqrt(request.forget_copies.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Sides:
    """Draws a driver's batches from a request."""

    driver: Driver
    request: Request

    def kept(self, rng: np.random.Generator) -> Batch:
        """Retained images, drawn as often as they stand in the training data."""
        request, driver = self.request, self.driver
        return driver.share(draw_batch(driver.base, request.retain, rng, driver.batch_size, request.retain_copies))

    def gone(
        self, rng: np.random.Generator, change: Callable[[Batch, np.random.Generator], Batch] | None = None
    ) -> Batch:
        """Forgotten images with the true noise as target, or what ``change`` makes of them."""
        batch = self._forgotten(rng)
        return self.driver.share(batch if change is None else change(batch, rng))

    def taught(self, index: int, rng: np.random.Generator, teacher: Teacher | Unlearned) -> Batch:
        """Forgotten images of step ``index`` with the teacher's answers as target, from the bank if one is kept."""

        def draw(rng: np.random.Generator) -> Batch:
            return teacher.prepared(self._forgotten(rng), rng)

        return self.driver.taught(index, rng, draw, teacher.wanted)

    def _forgotten(self, rng: np.random.Generator) -> Batch:
        request, driver = self.request, self.driver
        return draw_batch(driver.base, request.forget, rng, driver.batch_size, pull(request))
