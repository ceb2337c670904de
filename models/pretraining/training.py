"""One step of the base model's training, and all that the next step depends on. `models.pretraining.trainer` repeats it."""

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import RunError
from common.privacy.dpsgd.native.build import library
from common.privacy.dpsgd.summed import sum_gradients
from models.augment import augment
from models.preprocess import Preprocessing
from models.pretraining.checkpoint import State
from models.pretraining.data import TwiceLabelled
from models.pretraining.depthwise import speed_up
from models.pretraining.heads import build_two_heads, two_headed_loss
from models.pretraining.recipe import Recipe
from models.pretraining.schedule import batch_rows, ema_decay, step_seed

WARPS, DROPOUT = 1, 2
"""Purposes of a step's seeds."""


class Training:
    """Network, moving average of its weights, and optimiser, between two steps.

    What is random in a step is a function of the recipe's seed and the step's number.
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        faster = sum_gradients if self.device.type == "cpu" and library() is not None else speed_up
        self.network = faster(build_two_heads(recipe)).to(self.device).train()
        self.average = build_two_heads(recipe).to(self.device).eval().requires_grad_(False)
        self.optimiser = make_optimiser(recipe, self.network)

    def step(self, number: int, rate: float, faces: TwiceLabelled) -> float:
        """Do step `number`, from 0, at learning rate `rate`; returns the batch's loss."""
        recipe = self.recipe
        rows = batch_rows(number, len(faces), recipe.batch_size, recipe.seed)
        inputs = torch.from_numpy(Preprocessing().normalise(faces.images[rows]))
        if recipe.augment:
            inputs = augment(inputs, torch.Generator().manual_seed(step_seed(recipe.seed, number, WARPS)))
        inputs = inputs.to(self.device).contiguous(memory_format=torch.channels_last)
        votes = torch.from_numpy(faces.votes[rows]).to(self.device)
        labels = torch.from_numpy(faces.labels[rows]).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(step_seed(recipe.seed, number, DROPOUT))
            loss = two_headed_loss(self.network(inputs), votes, labels, recipe)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        with torch.no_grad():
            theirs: list[Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(list[Tensor](self.average.parameters()), theirs, 1 - ema_decay(recipe.ema, number))
        return float(loss.detach())

    def state(self) -> State:
        """Copies of everything that the next step depends on."""
        found: dict[str, Tensor] = {f"weights/{name}": value for name, value in self.network.named_parameters()}
        found |= {f"ema/{name}": value for name, value in self.average.named_parameters()}
        for i, values in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser/{i}/{name}": value for name, value in values.items() if value is not None}
        return {name: np.array(value.detach().cpu().numpy(), order="C") for name, value in found.items()}

    def restore(self, state: State) -> None:
        """Set everything to what `state` returned.

        Raises:
            RunError: the state is of another network or optimiser.
        """
        try:
            with torch.no_grad():
                for part, network in (("weights", self.network), ("ema", self.average)):
                    for name, parameter in network.named_parameters():
                        parameter.copy_(torch.from_numpy(state[f"{part}/{name}"]))
            self._restore_optimiser(state)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise RunError(f"The checkpoint does not fit the recipe's network ({type(error).__name__}).") from error

    def _restore_optimiser(self, state: State) -> None:
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in state.items():
            if name.startswith("optimiser/"):
                _, i, moment = name.split("/")
                value, like = torch.from_numpy(array), parameters[int(i)]
                if value.shape == like.shape:
                    value = torch.empty_like(like).copy_(value)
                moments.setdefault(int(i), {})[moment] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]})


def make_optimiser(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay acts on tensors with two or more dimensions."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
