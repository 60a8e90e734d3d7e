"""Continual learning with deep generative replay (Shin, Lee, Kim and Kim 2017).

To read it, go in this order: data, nets, generators, replay, regularisers, faults, learner,
config, experiment, study, sweep, cli. Beside them stand metrics, quality, privacy and plots.
"""

from importlib.metadata import version

from .config import Config
from .data import Examples, Legend, Stream, Task, domains, permuted, rotated, split
from .datasets import load
from .experiment import run
from .generators import (
    VAE,
    WGANGP,
    FlowMatching,
    conv_vae,
    conv_wgan,
    mlp_flow,
    mlp_vae,
    mlp_wgan,
    sample,
)
from .learner import GenerativeReplay, accuracy
from .nets import conv_solver, mlp_solver
from .regularisers import EWC, SI
from .replay import Strategy

__version__ = version("genreplay-core")

__all__ = [
    "EWC",
    "SI",
    "VAE",
    "WGANGP",
    "Config",
    "Examples",
    "FlowMatching",
    "GenerativeReplay",
    "Legend",
    "Strategy",
    "Stream",
    "Task",
    "accuracy",
    "conv_solver",
    "conv_vae",
    "conv_wgan",
    "domains",
    "load",
    "mlp_flow",
    "mlp_solver",
    "mlp_vae",
    "mlp_wgan",
    "permuted",
    "rotated",
    "run",
    "sample",
    "split",
]
