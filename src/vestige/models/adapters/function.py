"""Any callable or module ``f(x_t, t[, condition])`` as a denoiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.models.schedule import Schedule


class FunctionDenoiser(Denoiser):
    """Wraps a function with a declared schedule and prediction.

    Parameters
    ----------
    function : called as ``f(x_t, t)`` or, when ``classes > 0``, ``f(x_t, t, condition)``;
        x_t float [n, c, h, w], t float [n] in [0, 1] times ``time_scale``, condition
        integer [n] (None becomes the null condition, if there is one).
    identity : a name that changes whenever the function's answers change; it keys stored
        results. A module is identified by its weights as well.
    time_scale : what the function calls time 1 (999 or 1000 for many networks).

    Raises
    ------
    InvalidInput : the function answers with another shape than it was given.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        schedule: Schedule,
        prediction: Prediction,
        shape: tuple[int, int, int],
        *,
        identity: str,
        classes: int = 0,
        null_condition: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        access = Access.WEIGHTS if isinstance(function, nn.Module) else Access.SCORES
        super().__init__(schedule, prediction, shape, classes=classes, null_condition=null_condition, access=access)
        self.function, self.identity, self.time_scale = function, identity, time_scale
        if isinstance(function, nn.Module):
            function.eval()

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Call the function."""
        if condition is None and self.null_condition is not None:
            condition = torch.full((len(x_t),), self.null_condition, device=x_t.device)
        arguments = (x_t, t * self.time_scale, condition) if self.classes else (x_t, t * self.time_scale)
        answer = self.function(*arguments)
        if answer.shape != x_t.shape:
            raise InvalidInput(
                f"The function answered with shape {tuple(answer.shape)}.",
                expected=f"the shape of its input, {tuple(x_t.shape)}.",
                remedy="wrap it so that it returns one prediction a pixel.",
            )
        return answer

    @property
    def device(self) -> torch.device:
        """Device of the module's first parameter; the CPU for a plain function."""
        if isinstance(self.function, nn.Module):
            return next((p.device for p in self.function.parameters()), torch.device("cpu"))
        return torch.device("cpu")

    @property
    def module(self) -> nn.Module:
        """The wrapped module.

        Raises
        ------
        Unsupported : a plain function was wrapped.
        """
        if not isinstance(self.function, nn.Module):
            raise Unsupported(
                "A plain function has no weights to change.",
                expected="a torch nn.Module.",
                remedy="wrap the module itself instead of a function around it.",
            )
        return self.function

    def with_module(self, module: nn.Module) -> FunctionDenoiser:
        """The same declaration around another module."""
        return FunctionDenoiser(
            module,
            self.schedule,
            self.prediction,
            self.shape,
            identity=self.identity,
            classes=self.classes,
            null_condition=self.null_condition,
            time_scale=self.time_scale,
        )

    @property
    def digest(self) -> str:
        """Digest of identity, weights, schedule, prediction and labels."""
        weights = digest_tensors(self.function.state_dict()) if isinstance(self.function, nn.Module) else ""
        settings = {"identity": self.identity, "weights": weights, "prediction": self.prediction.value}
        labels = {"classes": self.classes, "null": self.null_condition}
        return digest_json({**settings, **labels, "time_scale": self.time_scale, **self.schedule.key()})
