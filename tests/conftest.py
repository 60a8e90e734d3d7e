"""One thread for all tests: on networks this small, and on a busy machine, more threads only wait
for each other."""

import torch

torch.set_num_threads(1)
