"""The scholar: what is frozen, what is mixed, what is random, what is refused, what is resumed."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from genreplay_core import (
    EWC,
    SI,
    VAE,
    GenerativeReplay,
    accuracy,
    conv_vae,
    conv_wgan,
    load,
    mlp_flow,
    mlp_solver,
    mlp_vae,
    mlp_wgan,
    replay,
    split,
)
from genreplay_core.data import Data, Examples, identity, labelled, legend_for
from genreplay_core.faults import Diverged
from genreplay_core.learner import BLOCK
from genreplay_core.regularisers import Regulariser
from genreplay_core.replay import Hard, Past, Strategy

SHAPE = (1, 4, 4)
PIXELS, CODES = 16, 6  # three tasks of two classes
BATCH = 8


# ---------------------------------------------------------------- small things to learn with


def task(number: int, n: int = 20) -> Examples:
    """n random images of the task's two classes."""
    rng = torch.Generator().manual_seed(number)
    return Examples(torch.rand(n, *SHAPE, generator=rng), 2 * number + torch.arange(n) % 2)


def normed(*layers: nn.Module, width: int = 8) -> nn.Sequential:
    """A network with batch norm, whose statistics move in train mode: weights alone don't tell."""
    first, last = layers[0], layers[1:]
    return nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(width), nn.ReLU(), *last)


def normed_solver(outputs: int = CODES) -> nn.Module:
    return normed(nn.Linear(PIXELS, 8), nn.Linear(8, outputs))


def normed_vae(classes: int | None = None) -> VAE:
    encoder = normed(nn.Linear(PIXELS, 8), nn.Linear(8, 6))
    image = nn.Linear(8, PIXELS), nn.Unflatten(1, SHAPE)
    return VAE(encoder, normed(nn.Linear(3 + (classes or 0), 8), *image), 3, classes)


def conditional_vae() -> VAE:
    return normed_vae(CODES)


def small_wgan() -> nn.Module:
    return mlp_wgan(SHAPE, latent_dim=3, hidden=8)


def scholar_of(
    generator: Callable[[], nn.Module] | None = normed_vae,
    solver: Callable[[], nn.Module] = normed_solver,
    nets: int = 0,
    seed: int | None = 0,
    protect: Callable[[nn.Module], nn.Module] | None = None,
    **changes: Any,
) -> GenerativeReplay:
    """A small scholar; equal `nets` give equal initial weights."""
    torch.manual_seed(nets)
    network = solver()
    return GenerativeReplay(
        network,
        generator and generator(),
        device="cpu",
        seed=seed,
        regulariser=protect and protect(network),
        **{"batch": BATCH, **changes},
    )


def learn(scholar: GenerativeReplay, *tasks: int, steps: int = 5, **how: Any) -> GenerativeReplay:
    for number in tasks:
        scholar.train_task(task(number), number, steps=steps, **how)
    return scholar


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def same_bits(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def frozen(scholar: GenerativeReplay) -> list[nn.Module]:
    return [scholar.frozen_solver, scholar.frozen_generator]


class Spy:
    """Keeps the batches and row weights that solver and generator are given."""

    def __init__(self, scholar: GenerativeReplay):
        self.solver: list[tuple[Data, Tensor]] = []
        self.generator: list[tuple[Data, Tensor]] = []
        scholar.solver_step = self.spying(scholar.solver_step, self.solver)
        scholar.generator_step = self.spying(scholar.generator_step, self.generator)

    @staticmethod
    def spying(step: Callable, seen: list) -> Callable:
        def spied(batch: Data, weight: Tensor) -> Tensor:
            seen.append((batch, weight))
            return step(batch, weight)

        return spied


class Numbered:
    """A replay whose images are their own number (divided by a million), to follow each row."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        number = sum(self.asked) + torch.arange(n)
        self.asked.append(n)
        x = (number / 1e6).view(-1, 1, 1, 1).expand(-1, *SHAPE)
        return Hard()(past, x, past.draw_codes(n))

    @staticmethod
    def numbers(rows: list[Tensor]) -> list[int]:
        return (torch.cat(rows)[:, 0, 0, 0] * 1e6).round().int().tolist()


# ---------------------------------------------------------------- the frozen scholar


def test_the_frozen_scholar_is_the_live_one_as_it_was_when_the_task_began():
    scholar = learn(scholar_of(), 0)
    live = [scholar.solver, scholar.generator]
    before = [snapshot(module) for module in live]
    looks = []

    def watch(done: int, total: int) -> None:
        looks.append(same_bits([m.state_dict() for m in frozen(scholar)], before))

    scholar.train_task(task(1), 1, steps=2 * BLOCK + 1, watch=watch)
    assert len(looks) >= 3  # after every block
    assert all(looks)  # weights and batch-norm statistics
    assert same_bits([m.state_dict() for m in frozen(scholar)], before)
    for module, start in zip(live, before, strict=True):
        end = module.state_dict()
        assert all(not torch.equal(end[name], start[name]) for name in start)  # the live ones moved


def test_the_frozen_scholar_dreams_and_answers_in_eval_mode_only():
    scholar, modes = learn(scholar_of(), 0), []
    for module in frozen(scholar):
        for part in module.modules():
            part.register_forward_hook(lambda part, given, out: modes.append(part.training))
    learn(scholar, 1)
    assert modes  # it was asked
    assert not any(modes)
    assert not any(part.training for module in frozen(scholar) for part in module.modules())
    assert all(part.training for part in scholar.solver.modules())


def test_the_frozen_scholar_stays_at_its_address_and_needs_no_gradient():
    def addresses(*modules: nn.Module) -> list[int]:
        return [part.data_ptr() for m in modules for part in m.state_dict().values()]

    scholar = scholar_of()
    before = addresses(*frozen(scholar))
    for number in range(3):
        learn(scholar, number)
        assert addresses(*frozen(scholar)) == before
    assert not set(addresses(scholar.solver, scholar.generator)) & set(before)
    assert not any(p.requires_grad for module in frozen(scholar) for p in module.parameters())


def test_going_on_with_a_task_freezes_nothing_anew():
    scholar = learn(scholar_of(), 0, 1)
    before = [snapshot(module) for module in frozen(scholar)]
    seen = scholar.past_seen.clone()
    learn(scholar, 1, 1)
    assert same_bits([module.state_dict() for module in frozen(scholar)], before)
    assert scholar.tasks == [0, 1]
    assert torch.equal(scholar.past_seen, seen)
    assert scholar.strategy.weights_of_new(len(scholar.tasks)) == (0.5, 0.5)


def test_a_task_may_come_in_parts():
    scholar, whole = scholar_of(), task(0)
    for code in (0, 1):
        scholar.train_task(whole[whole.y == code], 0, steps=2)
    scholar.train_task(task(1), 1, steps=2)
    assert (scholar.past.draw_codes(100).bincount(minlength=2) > 20).all()


def test_a_store_keeps_the_classes_of_all_parts_and_the_latest_of_each():
    scholar, whole = scholar_of(strategy=replay.stored(3)), task(0)
    for code in (0, 1, 1):
        scholar.train_task(whole[whole.y == code], 0, steps=2)
    assert scholar.kept.y.tolist() == [0] * 3 + [1] * 3
    learn(scholar, 1)
    assert scholar.kept.y.bincount().tolist() == [3, 3, 3, 3]
    assert same_bits([scholar.past_kept.x], [scholar.kept.x[:6]])


def test_replayed_rows_carry_no_gradient_whatever_the_replay():
    def careless(past: Past, now: Data, n: int) -> Data:
        x = past.live[1].decode(torch.randn(n, 3))
        return Data(x, past.live[0](x).softmax(1), *Hard()(past, x, past.draw_codes(n))[2:])

    scholar = scholar_of(strategy=Strategy(careless, careless))
    spy = Spy(scholar)
    learn(scholar, 0, 1)
    for batch, weight in spy.solver + spy.generator:
        assert not any(part.requires_grad for part in tensors((batch[:5], weight)))


# ---------------------------------------------------------------- the mixture


@pytest.mark.parametrize(("ratio", "old"), [(0.5, 4), (1.0, 8), (0.25, 2), (2.5, 20)])
@pytest.mark.parametrize("importance", [replay.one_over_tasks, 0.3, 0.9])
def test_new_rows_weigh_r_and_old_rows_the_rest_however_many_there_are(ratio, old, importance):
    scholar = scholar_of(strategy=replay.generative(importance=importance))
    spy = Spy(scholar)
    learn(scholar, 0, 1, 2, steps=1, replay_ratio=ratio)
    for number, (batch, weight) in enumerate(spy.solver):
        r, _ = scholar.strategy.weights_of_new(number + 1)
        assert len(weight) == len(batch.x) == BATCH + (old if number else 0)
        torch.testing.assert_close(weight[:BATCH], torch.full((BATCH,), r / BATCH))
        assert float(weight[BATCH:].sum()) == pytest.approx(1 - r)
        assert (batch.code[:BATCH] // 2 == number).all()
        assert (batch.code[BATCH:] // 2 < number).all()
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(spy.solver, spy.generator, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_solvers_loss_is_the_mixture_with_distillation(temperature):
    """r * cross-entropy(new) + (1 - r) * T^2 * cross-entropy(old, softened), row by row by hand."""
    scholar = scholar_of(strategy=replay.generative(replay.Soft(temperature), importance=0.3))
    learn(scholar, 0)
    spy, before = Spy(scholar), copy.deepcopy(scholar.solver)
    trained = scholar.train_task(task(1), 1, steps=1)
    batch, _ = spy.solver[0]
    logits = before(batch.x).detach()
    new = F.cross_entropy(logits[:BATCH], batch.code[:BATCH])
    asked = (scholar.frozen_solver(batch.x[BATCH:]) / temperature).softmax(1)
    old = -(asked * (logits[BATCH:] / temperature).log_softmax(1)).sum(1).mean()
    expected = 0.3 * new + 0.7 * temperature**2 * old
    torch.testing.assert_close(trained.solver_loss, expected.view(1))


def test_only_the_solvers_images_are_augmented_new_and_replayed_ones_alike():
    plain = learn(scholar_of(), 0)
    scholar = learn(scholar_of(augment=lambda x: x.flip(3)), 0)
    assert not same_bits(plain.solver.state_dict(), scholar.solver.state_dict())
    assert same_bits(plain.generator.state_dict(), scholar.generator.state_dict())
    spy, seen = Spy(scholar), []
    scholar.solver.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    scholar.train_task(task(1), 1, steps=1)
    ((batch, _),) = spy.solver
    assert len(batch.x) > BATCH  # some are replayed
    assert torch.equal(seen[-1], batch.x.flip(3))


def test_importance_one_is_training_without_replay():
    plain = learn(scholar_of(strategy=replay.none()), 0, 1, 2)
    scholar = learn(scholar_of(strategy=replay.generative(importance=1.0)), 0, 1, 2)
    assert same_bits(plain.state_dict(), scholar.state_dict())


def test_no_replayed_rows_is_training_without_replay():
    plain = learn(scholar_of(strategy=replay.none()), 0, 1)
    scholar = learn(scholar_of(strategy=replay.generative()), 0, 1, replay_ratio=0)
    assert same_bits(plain.state_dict(), scholar.state_dict())


def test_replay_makes_a_difference():
    plain = learn(scholar_of(strategy=replay.none()), 0, 1)
    scholar = learn(scholar_of(strategy=replay.generative()), 0, 1)
    assert not same_bits(plain.solver.state_dict(), scholar.solver.state_dict())
    assert not same_bits(plain.generator.state_dict(), scholar.generator.state_dict())


def test_dreams_are_the_default_where_there_is_a_generator():
    assert scholar_of().strategy == replay.generative()
    assert scholar_of(None).strategy == replay.none()


def test_noise_is_told_to_the_generator_row_by_row():
    """Replay alignment: the last rows of each batch are the frozen generator's images of z."""
    scholar = scholar_of(conditional_vae, strategy=replay.generative(align=True))
    learn(scholar, 0)
    spy = Spy(scholar)
    learn(scholar, 1, steps=BLOCK + 2)
    for batch, _ in spy.generator:
        dreams = scholar.frozen_generator.decode(batch.z, batch.code[BATCH:])
        torch.testing.assert_close(batch.x[BATCH:], dreams)


# ---------------------------------------------------------------- who is trained on what


@pytest.mark.parametrize("build", [mlp_vae, mlp_wgan, mlp_flow, lambda shape: Loss()])
def test_the_optimisers_hold_all_parameters_and_share_none(build):
    scholar = scholar_of(lambda: build(SHAPE))
    held = [
        [p for group in optimiser.param_groups for p in group["params"]]
        for _, optimiser in scholar._optimisers()
    ]
    assert {id(p) for p in held[0]} == {id(p) for p in scholar.solver.parameters()}
    rest = [id(p) for params in held[1:] for p in params]
    assert sorted(rest) == sorted(id(p) for p in scholar.generator.parameters())
    assert not {id(p) for p in held[0]} & set(rest)


def test_solver_and_generator_learn_from_the_same_dreams_when_their_strategies_agree():
    dreams = Numbered()
    scholar = scholar_of(strategy=Strategy(dreams, dreams))
    spy = Spy(scholar)
    learn(scholar, 0, 1, steps=BLOCK + 3, replay_ratio=1.0)
    assert same_bits(spy.solver, spy.generator)
    assert sum(dreams.asked) == (BLOCK + 3) * BATCH  # dreamt once for both


def test_solver_and_generator_dream_apart_when_their_strategies_differ():
    for_solver, for_generator = Numbered(), Numbered()
    scholar = scholar_of(strategy=Strategy(for_solver, for_generator))
    learn(scholar, 0, 1, steps=3, generator_steps=7, replay_ratio=1.0)
    assert (for_solver.asked, for_generator.asked) == ([3 * BATCH], [7 * BATCH])


def test_a_generator_that_is_not_to_rehearse_sees_the_new_task_only():
    scholar = scholar_of(strategy=replay.forgetful_generator())
    spy = Spy(scholar)
    learn(scholar, 0, 1, steps=3)
    assert [len(batch.x) for batch, _ in spy.solver] == [BATCH] * 3 + [BATCH + 4] * 3
    assert [len(batch.x) for batch, _ in spy.generator] == [BATCH] * 6


@pytest.mark.parametrize("steps", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_each_dream_is_used_once_and_dreamt_a_block_at_a_time(steps):
    dreams = Numbered()
    scholar = learn(scholar_of(strategy=Strategy(dreams, dreams)), 0)
    spy = Spy(scholar)
    learn(scholar, 1, steps=steps, replay_ratio=0.5)
    used = Numbered.numbers([batch.x[BATCH:] for batch, _ in spy.solver])
    assert used == list(range(steps * 4))
    assert max(dreams.asked) <= BLOCK * 4  # bounded memory
    assert sum(dreams.asked) == steps * 4  # none in vain


def test_dreams_are_new_ones_when_a_task_goes_on():
    scholar = learn(scholar_of(), 0)
    spy = Spy(scholar)
    learn(scholar, 1, 1, steps=3)
    dreams = torch.cat([batch.x[BATCH:] for batch, _ in spy.solver]).flatten(1)
    assert len(dreams.unique(dim=0)) == len(dreams) == 2 * 3 * 4


@pytest.mark.parametrize("steps", [5, 4 * BLOCK])
def test_every_example_is_used_once_before_any_is_used_again(steps):
    """20 examples, 8 a step: five steps are two epochs, however the blocks fall."""
    scholar = scholar_of(None)
    spy = Spy(scholar)
    learn(scholar, 0, steps=steps)
    rows = torch.cat([batch.x for batch, _ in spy.solver]).flatten(1)
    for epoch in rows.split(20)[: len(rows) // 20]:
        assert torch.equal(epoch.sort(0).values, task(0).x.flatten(1).sort(0).values)


def test_a_regulariser_is_told_each_step_and_shown_the_task_that_ended():
    class Notes(Regulariser):
        def __init__(self, solver: nn.Module):
            super().__init__(solver, strength=1.0)
            self.steps, self.rows = 0, []

        def after_step(self, solver: nn.Module) -> None:
            self.steps += 1

        def end_task(self, solver: nn.Module, rows: Callable[[int], Data]) -> None:
            self.rows.append(rows(40))

    scholar = learn(scholar_of(None, protect=Notes), 0, 1, steps=7)
    assert scholar.regulariser.steps == 14
    for number, rows in enumerate(scholar.regulariser.rows):
        twice = task(number).x.flatten(1).repeat(2, 1)
        assert torch.equal(rows.x.flatten(1).sort(0).values, twice.sort(0).values)
        assert (rows.y.argmax(1) == rows.code).all()


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("epochs", "n", "steps"), [(1, 16, 2), (1, 17, 3), (3, 20, 8), (0.5, 20, 2), (1, 3, 1)]
)
def test_epochs_are_as_many_steps_as_it_takes(epochs, n, steps):
    assert steps == math.ceil(epochs * n / BATCH)
    trained = scholar_of().train_task(task(0, n), 0, epochs=epochs)
    assert len(trained.solver_loss) == len(trained.generator_loss) == steps


@pytest.mark.parametrize("strategy", [replay.generative(), replay.forgetful_generator()])
@pytest.mark.parametrize("budgets", [(3, 40), (40, 3), (BLOCK, BLOCK)])
def test_solver_and_generator_keep_their_own_budgets(budgets, strategy):
    scholar = scholar_of(strategy=strategy)
    spy, steps = Spy(scholar), []
    trained = scholar.train_task(
        task(0),
        0,
        steps=budgets[0],
        generator_steps=budgets[1],
        watch=lambda done, total: steps.append((done, total)),
    )
    assert (len(trained.solver_loss), len(trained.generator_loss)) == budgets
    assert (len(spy.solver), len(spy.generator)) == budgets
    apart = strategy.solver != strategy.generator
    assert steps[-1] == ((sum(budgets),) * 2 if apart else (max(budgets),) * 2)


@pytest.mark.parametrize("every", [1, 3, BLOCK])
def test_watching_sees_the_solver_every_so_many_steps(every):
    scholar = scholar_of()
    spy, seen = Spy(scholar), [0]

    def watch(done: int, total: int) -> None:
        assert (len(spy.solver), total) == (done, 2 * BLOCK + 5)
        seen.append(done)

    scholar.train_task(task(0), 0, steps=2 * BLOCK + 5, watch=watch, watch_every=every)
    assert seen[-1] == 2 * BLOCK + 5
    assert all(0 <= b - a <= every for a, b in itertools.pairwise(seen))
    assert same_bits(scholar.state_dict(), learn(scholar_of(), 0, steps=2 * BLOCK + 5).state_dict())


def test_without_a_generator_there_is_no_generator_loss():
    trained = scholar_of(None).train_task(task(0), 0, steps=3)
    assert (len(trained.solver_loss), len(trained.generator_loss)) == (3, 0)
    assert trained.seconds > 0


# ---------------------------------------------------------------- randomness


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, again, other = (learn(scholar_of(seed=seed), 0, 1) for seed in (3, 3, 4))
    assert same_bits(first.state_dict(), again.state_dict())
    assert not same_bits(first.solver.state_dict(), other.solver.state_dict())


def test_a_seed_decides_whatever_the_global_state_and_leaves_it_alone():
    states = []
    for global_seed in (1, 2):
        scholar = scholar_of(seed=3)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        learn(scholar, 0, 1)
        scholar.observe(task(2).x, task(2).y)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(scholar.state_dict())
    assert same_bits(*states)


def test_a_seed_decides_the_order_of_a_shuffling_loader_too():
    """`DataLoader(shuffle=True)` draws its order from torch's global state."""
    states = []
    for global_seed in (1, 2):
        scholar = scholar_of(seed=3)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        loader = DataLoader(TensorDataset(task(0).x, task(0).y), batch_size=4, shuffle=True)
        scholar.train_task(loader, 0, steps=3)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(scholar.state_dict())
    assert same_bits(*states)


def test_without_a_seed_torchs_global_state_decides():
    states = []
    for global_seed in (1, 1, 2):
        scholar = scholar_of(seed=None)
        torch.manual_seed(global_seed)
        states.append(learn(scholar, 0, 1).solver.state_dict())
    assert same_bits(states[0], states[1])
    assert not same_bits(states[0], states[2])


@pytest.mark.parametrize("seed", [0, None])
def test_watching_changes_nothing(seed):
    def look(done: int, total: int) -> None:
        accuracy(scholar.solver, task(0), scholar.legend)
        scholar.generator.eval()
        torch.rand(7)
        scholar.generator.train()

    states = []
    for watch in (None, look):
        scholar = scholar_of(seed=seed)
        torch.manual_seed(1)
        learn(scholar, 0, 1, steps=BLOCK + 1, watch=watch)
        states.append(scholar.state_dict())
    assert same_bits(*states)


# ---------------------------------------------------------------- fast is the same as plain


def plain_solver_loss(solver: nn.Module, batch: Data) -> Tensor:
    """As a textbook writes it; the targets hold the rows' weights already."""
    log_answer = ((solver(batch.x) + batch.mask) / batch.temperature).log_softmax(1)
    return -(batch.y * log_answer).sum()


def plain_vae_loss(vae: VAE, batch: Data, weight: Tensor) -> Tensor:
    """Row by row: the encoder for new rows, the known noise for dreams, distributions for KL."""
    fresh = len(batch.x) if batch.z is None else len(batch.x) - len(batch.z)
    mean, logvar = vae.encoder(batch.x[:fresh]).chunk(2, 1)
    latent = mean + (logvar / 2).exp() * torch.randn_like(mean)
    centre, spread = vae.prior[batch.code].chunk(2, 1)
    normal = torch.distributions.Normal
    prior = normal(centre[:fresh], (spread[:fresh] / 2).exp())
    kl = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), prior).sum(1)
    if batch.z is not None:
        dreamt = centre[fresh:] + (spread[fresh:] / 2).exp() * batch.z
        latent = torch.cat([latent, dreamt])
    images = vae.decoder(torch.cat([latent, F.one_hot(batch.code, CODES)], 1)).sigmoid()
    wrong = F.binary_cross_entropy(images, batch.x, reduction="none").flatten(1).sum(1)
    return ((weight * wrong).sum() + (weight[:fresh] * kl).sum()) / PIXELS


@pytest.mark.parametrize("align", [False, True])
def test_twenty_fast_steps_are_twenty_plain_ones_but_for_rounding(align):
    scholar = scholar_of(
        lambda: mlp_vae(SHAPE, CODES, 4, 8),
        lambda: mlp_solver(SHAPE, CODES, 8),
        strategy=replay.generative(align=align),
        batch=16,
    )
    learn(scholar, 0)
    plain: list[Any] = copy.deepcopy([scholar.solver, scholar.generator])
    steps = [torch.optim.Adam(n.parameters(), 1e-3, fused=False, foreach=False) for n in plain]
    for own, old in zip(steps, (scholar.optimiser, scholar.generator.optimiser), strict=True):
        own.load_state_dict(copy.deepcopy(old.state_dict()))
        for group in own.param_groups:
            group.update(fused=False, foreach=False)
    spy, noise = Spy(scholar), []
    step = scholar.generator_step
    scholar.generator_step = lambda *args: noise.append(torch.get_rng_state()) or step(*args)
    learn(scholar, 1, steps=20)
    for at, state in enumerate(noise):
        losses = [plain_solver_loss(plain[0], spy.solver[at][0])]
        with torch.random.fork_rng():
            torch.set_rng_state(state)
            losses.append(plain_vae_loss(plain[1], *spy.generator[at]))
        for optimiser, loss in zip(steps, losses, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert len(noise) == 20
    for network, ours in zip(plain, (scholar.solver, scholar.generator), strict=True):
        for a, b in zip(network.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


# ---------------------------------------------------------------- averaged weights, falling rates


@pytest.mark.parametrize("budget", [5 * BLOCK, 4 * BLOCK + 3])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_the_weights_kept_are_the_mean_over_the_ends_of_the_last_blocks(budget, part):
    scholar, at = scholar_of(average=part), {}

    def watch(done: int, total: int) -> None:
        at[done] = snapshot(scholar.solver)["1.weight"]

    scholar.train_task(task(0), 0, steps=budget, watch=watch)
    last = at[budget]
    ends = [w for done, w in at.items() if done > (1 - part) * budget] or [last]
    kept = snapshot(scholar.solver)["1.weight"]
    torch.testing.assert_close(kept, torch.stack(ends).mean(0))
    assert torch.equal(kept, last) is (part == 0)


def test_the_generator_s_average_is_its_own():
    plain = learn(scholar_of(), 0, steps=3 * BLOCK)
    averaged = learn(scholar_of(generator_average=0.9), 0, steps=3 * BLOCK)
    assert same_bits(snapshot(plain.solver), snapshot(averaged.solver))
    assert not same_bits(snapshot(plain.generator), snapshot(averaged.generator))


def test_the_learning_rate_falls_along_half_a_cosine_and_is_put_back():
    scholar, seen = scholar_of(lr_end=0.2, lr=0.01), []

    def watch(done: int, total: int) -> None:
        seen.append(scholar.optimiser.param_groups[0]["lr"])

    scholar.train_task(task(0), 0, steps=4 * BLOCK, watch=watch)
    wanted = [0.01 * (0.2 + 0.8 * (1 + math.cos(math.pi * i / 4)) / 2) for i in range(4)]
    assert sorted(set(seen), reverse=True) == pytest.approx(wanted)
    assert scholar.optimiser.param_groups[0]["lr"] == 0.01


def test_a_call_that_is_interrupted_leaves_the_rates_as_they_were_given():
    def interrupt(done: int, total: int) -> None:
        if done == 3 * BLOCK:
            raise KeyboardInterrupt

    scholar = scholar_of(lr_end=0.01, lr=0.01)
    with pytest.raises(KeyboardInterrupt):
        scholar.train_task(task(0), 0, steps=4 * BLOCK, watch=interrupt)
    rates = {group["lr"] for _, o in scholar._optimisers() for group in o.param_groups}
    assert rates == {0.01, 1e-3}  # the solver's and the generator's own


def test_what_an_interrupted_task_has_shown_is_rehearsed_in_the_next():
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    scholar = scholar_of()
    with pytest.raises(KeyboardInterrupt):
        scholar.train_task(task(0), 0, steps=2 * BLOCK, watch=interrupt)
    spy = Spy(scholar)
    scholar.train_task(task(1), 1, steps=1)
    assert set((spy.solver[0][0].code[BATCH:] // 2).tolist()) == {0}


def test_a_rate_that_does_not_fall_changes_nothing():
    runs = [learn(scholar_of(lr_end=end), 0, 1, steps=2 * BLOCK) for end in (1.0, 1.0, 0.5)]
    states = [scholar.state_dict() for scholar in runs]
    assert same_bits(states[0], states[1])
    assert not same_bits(states[0], states[2])


def test_training_flushes_denormal_numbers_and_leaves_the_thread_as_it_was():
    def kept(*_):
        return float(torch.tensor(1e-39) * 1) != 0

    scholar, seen = scholar_of(), []
    scholar.train_task(task(0), 0, steps=1, watch=lambda *_: seen.append(kept()))
    assert not any(seen)
    assert kept()


# ---------------------------------------------------------------- bad input, in one line


def tiny(n: int = 4, shape: tuple[int, ...] = SHAPE, code: int = 0) -> tuple[Tensor, Tensor]:
    return torch.rand(n, *shape), torch.full((n,), code)


REFUSED: dict[str, tuple[Callable[[GenerativeReplay], Any], str]] = {
    "label too large": (
        lambda s: s.train_task(tiny(code=6), 1),
        r"label 6 is out of range.*0\.\.5",
    ),
    "label below 0": (lambda s: s.train_task(tiny(code=-1), 1), "label -1 is out of range"),
    "label not whole": (lambda s: s.train_task((tiny()[0], torch.rand(4)), 1), "expected integers"),
    "no label": (lambda s: s.train_task((tiny()[0], torch.zeros(0)), 1), "labels have shape"),
    "no example": (lambda s: s.train_task(tiny(0), 1), "the task is empty"),
    "empty loader": (lambda s: s.train_task([], 1), "the task is empty"),
    "nan": (lambda s: s.train_task((tiny()[0] * math.nan, tiny()[1]), 1), "nan or infinity"),
    "not pixels": (lambda s: s.train_task((tiny()[0] + 2, tiny()[1]), 1), r"expected \[0, 1\]"),
    "other shape": (lambda s: s.train_task(tiny(shape=(1, 5, 5)), 1), "can't take images"),
    "no step": (lambda s: s.train_task(tiny(), 1, steps=0), "at least one step, got 0"),
    "no stride": (lambda s: s.train_task(tiny(), 1, watch_every=0), "at least one step, got 0"),
    "no epoch": (lambda s: s.train_task(tiny(), 1, epochs=0), "at least one step, got 0"),
    "no generator step": (
        lambda s: s.train_task(tiny(), 1, steps=1, generator_steps=0),
        "at least one step, got 0",
    ),
    "negative ratio": (lambda s: s.train_task(tiny(), 1, replay_ratio=-1), "must be 0 or more"),
    "ratio nan": (lambda s: s.train_task(tiny(), 1, replay_ratio=math.nan), "must be 0 or more"),
    "task was left": (lambda s: s.train_task(tiny(), 7), "task 7 was left already"),
    "observed label": (lambda s: s.observe(*tiny(code=6)), "label 6 is out of range"),
    "observed nan": (lambda s: s.observe(tiny()[0] / 0, tiny()[1]), "nan or infinity"),
    "observed ratio": (lambda s: s.observe(*tiny(), replay_ratio=-1), "must be 0 or more"),
    "no snapshot": (lambda s: s.observe(*tiny(), snapshot_every=0), "at least 1, got 0"),
}


@pytest.mark.parametrize("classes", [None, CODES], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(name, classes):
    call, message = REFUSED[name]
    scholar = scholar_of(lambda: normed_vae(classes))
    for number in (7, 8):
        scholar.train_task(tiny(code=0), number, steps=1)
    before = copy.deepcopy(scholar.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        call(scholar)
    assert "\n" not in str(error.value)
    assert same_bits(scholar.state_dict(), before)
    assert scholar.tasks == [7, 8]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"generator": lambda: mlp_vae((1, 5, 5))},
            r"makes images \(1, 5, 5\), expected \(1, 4, 4\)",
        ),
        ({"generator": lambda: mlp_vae(SHAPE, classes=2)}, "the generator can't dream class 3"),
        ({"legend": identity(4)}, "solver has 6 outputs, expected 4"),
        (
            {"solver": lambda: nn.Linear(4, 6)},
            r"gives shape \(1, 1, 4, 6\), expected \(N, outputs\)",
        ),
        ({"strategy": replay.generative(importance=2.0)}, "importance must lie in"),
    ],
    ids=["generator's shape", "generator's classes", "legend", "solver's output", "importance"],
)
def test_parts_that_do_not_fit_are_refused_when_the_first_task_comes(parts, message):
    with pytest.raises(ValueError, match=message) as error:
        scholar_of(**parts).train_task(task(1), 1, steps=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["average", "generator_average", "lr_end"])
@pytest.mark.parametrize("part", [-0.1, 1.1, math.nan])
def test_a_part_lies_between_0_and_1(name, part):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got {part}"):
        scholar_of(**{name: part})


def test_a_schedule_of_one_s_own_is_left_alone():
    scholar, rates = scholar_of(), []
    schedule = torch.optim.lr_scheduler.ExponentialLR(scholar.optimiser, 0.5)

    def watch(done, total):
        schedule.step()
        rates.append(scholar.optimiser.param_groups[0]["lr"])

    scholar.train_task(tiny(), 1, steps=3 * BLOCK, watch=watch)
    assert rates == [1e-3 * 0.5**i for i in range(1, len(rates) + 1)]
    assert scholar.optimiser.param_groups[0]["lr"] == rates[-1]


def test_who_looks_at_a_network_in_eval_mode_does_not_leave_it_so():
    scholar = scholar_of()
    modes = []
    scholar.solver.register_forward_pre_hook(lambda net, _: modes.append(net.training))
    scholar.train_task(tiny(), 1, steps=2 * BLOCK, watch=lambda *_: scholar.solver.eval())
    scholar.solver.eval()
    scholar.train_task(tiny(), 1, steps=1)
    assert modes.count(True) >= 2 * BLOCK + 1
    scholar.solver.eval()
    scholar.observe(*tiny())
    modes.clear()
    scholar.solver.eval()
    scholar.observe(*tiny())
    assert modes[-1]


def test_a_replay_that_gives_too_few_rows_is_refused():
    few = Strategy(lambda past, now, n: Data(*(part[: n - 1] for part in now[:5])))
    scholar = scholar_of(strategy=few)
    scholar.train_task(tiny(), 1, steps=1)
    with pytest.raises(ValueError, match=f"asked for {BATCH} rows and gave {BATCH - 1}"):
        scholar.train_task(tiny(), 2, steps=1, replay_ratio=1.0)


def test_a_state_with_an_optimiser_that_is_not_there_is_refused():
    full, plain = scholar_of(normed_vae), scholar_of(None)
    state = {**plain.state_dict(), "optimisers": full.state_dict()["optimisers"]}
    with pytest.raises(ValueError, match="it has an optimiser more, generator"):
        plain.load_state_dict(state)


@pytest.mark.parametrize("name", ["mnist", None, 1.0])
def test_a_task_has_a_number_and_no_name(name):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        scholar_of().train_task(tiny(), name, steps=1)


def test_a_task_numbered_by_numpy_comes_back_from_a_file():
    scholar = scholar_of()
    scholar.train_task(tiny(), np.int64(3), steps=1)
    assert [type(task) for task in scholar.tasks] == [int]


def test_what_is_observed_may_be_arrays():
    x, y = tiny()
    losses = [scholar_of(seed=3).observe(*pair) for pair in ((x, y), (x.numpy(), y.numpy()))]
    assert torch.equal(*losses)


@pytest.mark.parametrize("batch", [0, -8])
def test_a_batch_needs_a_row(batch):
    with pytest.raises(ValueError, match="batch must be at least 1"):
        scholar_of(batch=batch)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="can't be used here"):
        GenerativeReplay(normed_solver(), device="no such device")


def test_a_generator_that_lacks_a_part_is_refused():
    class Mute(nn.Module):
        latent_dim = 3

        def train_step(self, x: Tensor) -> Tensor:
            return x.sum()

    with pytest.raises(TypeError, match="Mute lacks decode"):
        scholar_of(Mute)


def test_a_stream_without_tasks_can_store_nothing():
    with pytest.raises(ValueError, match=r"observe\(\) stores nothing"):
        scholar_of(strategy=replay.stored(3)).observe(task(0).x, task(0).y)


ENDS = [{"average": 0.9}, {"generator_average": 0.9}, {"lr_end": 0.1}, {"protect": SI}]


@pytest.mark.parametrize("needing", ENDS, ids=lambda needing: next(iter(needing)))
def test_a_stream_without_tasks_has_no_ends_of_them(needing):
    with pytest.raises(ValueError, match=r"observe\(\) knows no ends: leave out regulariser"):
        scholar_of(**needing).observe(task(0).x, task(0).y)


# ---------------------------------------------------------------- diverged


class Breaks(nn.Module):
    """Answers nan from its n-th training step on."""

    def __init__(self, step: int):
        super().__init__()
        self.body, self.step, self.steps = nn.Linear(PIXELS, CODES), step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.body(x.flatten(1)) * (math.nan if self.steps >= self.step else 1)


@pytest.mark.parametrize("step", [1, BLOCK, BLOCK + 1, BLOCK + 3])
def test_a_loss_that_is_not_finite_names_task_and_step(step):
    scholar = scholar_of(solver=lambda: Breaks(step + 4))
    scholar.train_task(task(0), 3, steps=3)
    with pytest.raises(Diverged, match=f"became nan in task 5 at step {step + 1}:"):
        scholar.train_task(task(1), 5, steps=3 * BLOCK)


def test_an_infinite_learning_rate_diverges_at_the_second_step():
    with pytest.raises(Diverged, match="in task 0 at step 2: lower the learning rate"):
        learn(scholar_of(None, lr=math.inf), 0)


# ---------------------------------------------------------------- optimisers


def steps_taken(scholar: GenerativeReplay) -> list[list[int]]:
    """How many steps each optimiser remembers."""
    return [
        [int(state["step"]) for state in optimiser.state.values()][:1]
        for _, optimiser in scholar._optimisers()
    ]


@pytest.mark.parametrize("build", [normed_vae, small_wgan], ids=["one", "two"])
def test_optimisers_are_remembered_unless_they_are_to_be_reset(build):
    keeps, resets = (scholar_of(build, reset_optimisers=reset) for reset in (False, True))
    count = len(keeps._optimisers())
    for number, expected in enumerate([4, 8, 12]):
        assert steps_taken(learn(keeps, number, steps=4)) == [[expected]] * count
        assert steps_taken(learn(resets, number, steps=4)) == [[4]] * count
    assert steps_taken(learn(resets, 2, steps=4)) == [[8]] * count  # the same task goes on


# ---------------------------------------------------------------- without task boundaries


def observe(scholar: GenerativeReplay, batches: range, every: int = 3) -> list[bool]:
    """Each batch and, before each, whether the frozen scholar equals the live one after it."""
    frozen_anew = []
    for i in batches:
        live = snapshot(scholar.solver)
        examples = task(i % 2)
        scholar.observe(examples.x[:BATCH], examples.y[:BATCH], snapshot_every=every)
        frozen_anew.append(same_bits(live, scholar.frozen_solver.state_dict()))
    return frozen_anew


def test_a_task_is_learned_in_train_mode():
    scholar = scholar_of()
    modes: list[bool] = []
    for network in (scholar.solver, scholar.generator):
        network.eval()
        network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    scholar.solver_step = lambda *rows: modes.append(scholar.solver.training) or torch.zeros(())
    learn(scholar, 0)
    assert scholar.solver.training
    assert scholar.generator.training
    assert modes[-5:] == [True] * 5


def test_few_rows_are_replayed_rather_than_none():
    scholar = learn(scholar_of(), 0)
    spy = Spy(scholar)
    learn(scholar, 1, steps=1, replay_ratio=0.01)
    assert len(spy.solver[0][1]) == BATCH + 1


@pytest.mark.parametrize(
    ("strategy", "message"),
    [(replay.generative(), "give GenerativeReplay a generator"), (replay.stored(0), "is stored")],
)
def test_a_strategy_without_its_means_is_refused(strategy, message):
    scholar = learn(scholar_of(None, strategy=strategy), 0)
    with pytest.raises(ValueError, match=message):
        learn(scholar, 1)


def test_networks_that_begin_anew_are_taught_by_the_frozen_scholar():
    scholar = scholar_of(strategy=replace(replay.generative(), anew=True))
    untrained = [snapshot(scholar.solver), snapshot(scholar.generator)]
    learn(scholar, 0)
    taught = [snapshot(scholar.solver), snapshot(scholar.generator)]
    scholar._enter(1)
    assert same_bits([snapshot(scholar.solver), snapshot(scholar.generator)], untrained)
    assert same_bits([snapshot(network) for network in frozen(scholar)], taught)
    assert not any(optimiser.state for _, optimiser in scholar._optimisers())


def test_observing_freezes_the_scholar_every_so_many_batches():
    scholar = scholar_of()
    assert observe(scholar, range(8)) == [True, False, False] * 2 + [True, False]
    assert scholar.tasks == [0, 1, 2]


def test_observing_replays_from_the_second_snapshot_on():
    scholar = scholar_of()
    spy = Spy(scholar)
    observe(scholar, range(9))
    for batches in (spy.solver, spy.generator):
        assert [len(batch.x) for batch, _ in batches] == [BATCH] * 3 + [2 * BATCH] * 6
        new = [float(weight[:BATCH].sum()) for _, weight in batches]
        assert new == pytest.approx([1, 1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    assert scholar.seen.tolist() == [1, 1, 1, 1, 0, 0]


def test_observing_dreams_what_was_met_before_the_last_snapshot():
    scholar = scholar_of()
    spy = Spy(scholar)
    for number in (0, 1, 2):
        for _ in range(3):
            scholar.observe(task(number).x, task(number).y, snapshot_every=3)
    old = [set((batch.code[20:] // 2).tolist()) for batch, _ in spy.solver]
    assert old == [set()] * 3 + [{0}] * 3 + [{0, 1}] * 3


def test_observing_uses_each_dream_once():
    scholar = scholar_of()
    spy = Spy(scholar)
    observe(scholar, range(6))
    dreams = torch.cat([batch.x[BATCH:] for batch, _ in spy.solver]).flatten(1)
    assert len(dreams.unique(dim=0)) == len(dreams) == 3 * BATCH


def test_observing_after_tasks_begins_with_a_snapshot():
    for number in (0, 1, 5):
        scholar = scholar_of()
        scholar.train_task(task(0), number, steps=1)
        assert observe(scholar, range(2)) == [True, False]


def test_observing_gives_the_same_bits_for_the_same_seed():
    states = []
    for seed in (1, 1, 2):
        scholar = scholar_of(seed=seed)
        observe(scholar, range(7))
        states.append(scholar.state_dict())
    assert same_bits(states[0], states[1])
    assert not same_bits(states[0], states[2])


def test_observing_a_stream_in_two_phases_keeps_the_first():
    """Five digits, then the other five, and nobody says when: snapshots fall within a phase."""
    stream = split(load("digits"), tasks=2, scenario="class", seed=0)

    def first_phase(strategy: Strategy) -> float:
        torch.manual_seed(0)
        solver, vae = mlp_solver((1, 8, 8), 10, 50), mlp_vae((1, 8, 8), 10, 10, 100)
        scholar = GenerativeReplay(solver, vae, "cpu", strategy=strategy, lr=3e-3, seed=0)
        for examples in [task.train for task in stream]:
            for i in range(80):
                rows = torch.arange(32 * i, 32 * i + 32) % len(examples)
                scholar.observe(examples.x[rows], examples.y[rows], snapshot_every=35)
        assert accuracy(solver, stream[1].test, stream.legend) > 0.5
        return accuracy(solver, stream[0].test, stream.legend)

    assert first_phase(replay.generative()) > first_phase(replay.none()) + 0.4


# ---------------------------------------------------------------- saving


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file that can hold tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


KINDS: dict[str, Callable[..., GenerativeReplay]] = {
    "generative": scholar_of,
    "conditional": partial(scholar_of, conditional_vae),
    "two optimisers": partial(scholar_of, small_wgan),
    "stored": partial(scholar_of, None, strategy=replay.stored(3)),
    "joint": partial(scholar_of, None, strategy=replay.joint()),
    "EWC": partial(scholar_of, None, protect=EWC),
    "SI": partial(scholar_of, None, protect=SI),
    "one's own": lambda **how: scholar_of(Loss, **how),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_scholar_goes_on_bit_for_bit_where_it_was_saved(kind):
    """The reader's networks start elsewhere, so all that counts must be in the state."""
    straight = learn(KINDS[kind](), 0, 1, 2)
    first = learn(KINDS[kind](), 0, 1)
    resumed = KINDS[kind](nets=1)
    resumed.load_state_dict(saved(first.state_dict()))
    assert same_bits(learn(resumed, 2).state_dict(), straight.state_dict())
    assert resumed.tasks == straight.tasks


def test_a_stream_without_tasks_goes_on_bit_for_bit_where_it_was_saved():
    straight, first, resumed = (scholar_of(nets=nets) for nets in (0, 0, 1))
    observe(straight, range(11))
    observe(first, range(7))
    resumed.load_state_dict(saved(first.state_dict()))
    observe(resumed, range(7, 11))
    assert same_bits(resumed.state_dict(), straight.state_dict())


def test_a_task_goes_on_bit_for_bit_where_it_was_saved():
    straight = learn(scholar_of(), 0, 1, 1)
    resumed = scholar_of(nets=1)
    resumed.load_state_dict(saved(learn(scholar_of(), 0, 1).state_dict()))
    assert same_bits(learn(resumed, 1).state_dict(), straight.state_dict())


def test_two_scholars_that_start_from_one_state_do_not_disturb_each_other():
    state = learn(scholar_of(), 0).state_dict()
    before = copy.deepcopy(state)
    scholar = scholar_of(nets=1)
    scholar.load_state_dict(state)
    learn(scholar, 1)
    observe(scholar, range(4))
    assert same_bits(state, before)


FOREIGN: dict[str, Callable[[], Any]] = {
    "wider solver": lambda: scholar_of(solver=lambda: mlp_solver(SHAPE, CODES, 9)).state_dict(),
    "other generator": lambda: scholar_of(small_wgan).state_dict(),
    "no generator": lambda: scholar_of(None).state_dict(),
    "part missing": lambda: {k: v for k, v in scholar_of().state_dict().items() if k != "seen"},
    "empty": dict,
    "nothing": lambda: None,
    "a network's": lambda: normed_solver().state_dict(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_state_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=r"this state doesn't fit the scholar: \S") as error:
        scholar_of().load_state_dict(FOREIGN[name]())
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- a reader's own networks


class Own(nn.Module):
    """A reader's solver, which flattens as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(PIXELS, 12), nn.Linear(12, CODES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(x.view(len(x), -1))))


class Loss(nn.Module):
    """A reader's generator, plain: an autoencoder whose `train_step` returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 5
        self.encoder, self.decoder = nn.Linear(PIXELS, 5), nn.Linear(5, PIXELS)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).sigmoid().view(-1, *SHAPE)

    def train_step(self, x: Tensor) -> Tensor:
        code = self.encoder(x.flatten(1))
        return (
            F.mse_loss(self.decode(code + torch.randn_like(code)), x) + 0.01 * code.square().mean()
        )


class Steps(Loss):
    """The same with its own optimiser, returning a number."""

    def __init__(self) -> None:
        super().__init__()
        self.descent = torch.optim.SGD(self.parameters(), lr=1.0)
        self.calls = 0

    def train_step(self, x: Tensor) -> float:
        self.calls += 1
        loss = super().train_step(x)
        self.descent.zero_grad()
        loss.backward()
        self.descent.step()
        return loss.item()


@pytest.mark.parametrize("build", [Loss, Steps], ids=["gives a loss", "owns an optimiser"])
def test_a_plain_solver_and_generator_learn_from_loaders(build):
    torch.manual_seed(0)
    solver, generator = Own(), build()
    dark = [Examples(t.x / 4, t.y) for t in (task(0, 400), task(1, 400))]
    loaders = [DataLoader(TensorDataset(t.x, t.y), batch_size=7, shuffle=True) for t in dark]
    scholar = GenerativeReplay(solver, generator, device="cpu")
    spy, z = Spy(scholar), torch.randn(50, 5)
    for task_id, loader in enumerate(loaders):
        grey = generator.decode(z).mean()
        before = F.cross_entropy(solver(dark[task_id].x), dark[task_id].y)
        trained = scholar.train_task(loader, task_id, epochs=2, replay_ratio=0.5)
        assert len(trained.solver_loss) == len(trained.generator_loss) == math.ceil(800 / 128)
        assert F.cross_entropy(solver(dark[task_id].x), dark[task_id].y) < before
        assert generator.decode(z).mean() < grey
    assert [len(batch.x) for batch, _ in spy.solver] == [128] * 7 + [192] * 7
    assert all((weight[128:].sum() - 0.5).abs() < 1e-5 for _, weight in spy.generator[7:])
    assert getattr(generator, "calls", 14) == 14


def test_a_generator_is_stepped_by_one_optimiser_only():
    """A gradient step of its own and another one by the learner would be one too many."""
    names = [[name for name, _ in scholar_of(g)._optimisers()] for g in (Loss, Steps)]
    assert names == [["solver", "generator.optimiser"], ["solver", "generator.inner.descent"]]


# ---------------------------------------------------------------- nothing waits for the device


WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim"}


class Waiting(TorchDispatchMode):
    """Notes each operator whose result the host would have to wait for on an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        self.operators += 1
        by_mask = name.startswith("index") and any(
            part.dtype in (torch.bool, torch.uint8) for part in tensors(args[1:2])
        )
        moves = name == "_to_copy" and kwargs.get("device", args[0].device) != args[0].device
        if name in WAITS or by_mask or moves:
            self.waits.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.to("meta"),
    ],
)
def test_what_would_wait_is_noticed(waiting):
    with Waiting() as mode:
        waiting(torch.ones(3))
    assert mode.waits


STEPS: dict[str, Callable[[], GenerativeReplay]] = {
    **KINDS,
    "aligned": partial(scholar_of, strategy=replay.generative(align=True)),
    "hard": partial(scholar_of, strategy=replay.generative(Hard())),
    "noise": partial(scholar_of, strategy=replay.noise()),
    "current": partial(scholar_of, strategy=replay.current()),
    "live": partial(scholar_of, strategy=replay.live()),
    "flow": partial(scholar_of, lambda: mlp_flow(SHAPE, CODES, 8)),
    "bfloat16": partial(scholar_of, precision=torch.bfloat16),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_step_waits_for_the_device(name):
    """Only the look at a block's losses does, outside of the steps."""
    scholar, mode = learn(STEPS[name](), 0), Waiting()

    def watched(step: Callable) -> Callable:
        def inside(*args: Any) -> Any:
            with mode:
                return step(*args)

        return inside

    for step in ("_batches", "solver_step", "generator_step"):
        setattr(scholar, step, watched(getattr(scholar, step)))
    learn(scholar, 1, steps=3)
    assert mode.operators > 50
    assert mode.waits == []


# What a step dispatches, and the drawing of a block of steps. On a GPU most of these are launches:
# fewer is better, more is a regression. (A newer torch may need fewer.)
MOST_OPERATORS = {
    "published": {"solver_step": 66, "generator_step": 151, "_batches": 65},
    "conditional, aligned": {"solver_step": 66, "generator_step": 185, "_batches": 68},
}


def operators_of_a_step(scholar: GenerativeReplay) -> dict[str, int]:
    """Operators that each part of the second task's loop dispatches, a block's draw as a whole."""
    learn(scholar, 0)
    modes = {part: Waiting() for part in ("solver_step", "generator_step", "_batches")}
    for part, mode in modes.items():
        original = getattr(scholar, part)

        def counted(*args: Any, mode: Waiting = mode, original: Callable = original) -> Any:
            with mode:
                return original(*args)

        setattr(scholar, part, counted)
    learn(scholar, 1, steps=1)
    return {part: mode.operators for part, mode in modes.items()}


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 makes more of them")
@pytest.mark.parametrize("name", MOST_OPERATORS)
def test_a_step_dispatches_no_more_operators_than_it_did(name):
    classes, strategy = {
        "published": (None, replay.generative(Hard())),
        "conditional, aligned": (CODES, replay.generative(align=True)),
    }[name]
    scholar = scholar_of(
        lambda: mlp_vae(SHAPE, classes), lambda: mlp_solver(SHAPE, CODES), strategy=strategy
    )
    counts, most = operators_of_a_step(scholar), MOST_OPERATORS[name]
    assert all(0.7 * most[part] < count <= most[part] for part, count in counts.items()), counts


def on_meta(generator: Callable[[], nn.Module], strategy: Strategy) -> GenerativeReplay:
    with torch.device("meta"):
        parts = mlp_solver((1, 8, 8), CODES, 8), generator()
    return GenerativeReplay(*parts, "meta", strategy=strategy, batch=4)


def nowhere(n: int = 10) -> tuple[Tensor, Tensor]:
    x = torch.empty(n, 1, 8, 8, device="meta")
    return x, torch.empty(n, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("classes", [None, CODES], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("build", [mlp_vae, conv_vae, mlp_wgan, conv_wgan, mlp_flow])
def test_two_tasks_run_on_a_device_without_values(build, classes):
    """The meta device knows shapes only: a wait, a mask or a tensor left on the CPU fails there."""
    scholar = on_meta(lambda: build((1, 8, 8), classes), replay.generative())
    for number in range(2):
        trained = scholar.train_task(nowhere(), number, steps=1)
        assert trained.solver_loss.shape == trained.generator_loss.shape == (1,)


@pytest.mark.parametrize(
    "strategy",
    [
        replay.generative(Hard()),
        replay.generative(align=True),
        replay.forgetful_generator(),
        replay.live(),
        replay.noise(),
        replay.current(),
    ],
    ids=["hard", "aligned", "forgetful", "live", "noise", "current"],
)
def test_strategies_run_on_a_device_without_values(strategy):
    scholar = on_meta(lambda: mlp_vae((1, 8, 8), CODES, 4, 8), strategy)
    for number in range(2):
        trained = scholar.train_task(nowhere(), number, steps=2)
        assert trained.solver_loss.shape == (2,)


def test_observing_runs_on_a_device_without_values():
    scholar = on_meta(lambda: mlp_vae((1, 8, 8), CODES, 4, 8), replay.generative())
    for _ in range(5):
        assert scholar.observe(*nowhere(), snapshot_every=2).shape == ()


def test_half_precision_is_for_the_steps_and_not_for_the_weights():
    single, half = (learn(scholar_of(precision=p), 0, 1) for p in (None, torch.bfloat16))
    assert not same_bits(single.solver.state_dict(), half.solver.state_dict())
    for a, b in zip(single.solver.parameters(), half.solver.parameters(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.05, rtol=0)


def test_in_half_precision_a_step_sees_the_weights_of_the_last_one():
    stream = split(load("digits"), tasks=5, scenario="class", seed=0)
    found = []
    for precision in (None, torch.bfloat16):
        torch.manual_seed(0)
        solver = mlp_solver(stream.shape, 10, hidden=32)
        scholar = GenerativeReplay(solver, None, "cpu", precision=precision, seed=0)
        found.append(scholar.train_task(stream[0].train, 0, steps=60).solver_loss[-10:].mean())
    torch.testing.assert_close(found[0], found[1], atol=0.05, rtol=0)


# ---------------------------------------------------------------- accuracy


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("chunk", [3, 7, 2000])
def test_accuracy_is_a_count_by_hand(scenario, chunk):
    torch.manual_seed(0)
    legend = legend_for(scenario, 3, 2)
    solver = mlp_solver(SHAPE, legend.outputs, 8)
    examples = Examples(torch.rand(25, *SHAPE), torch.arange(25) % CODES)
    right = 0
    for x, code in zip(examples.x, examples.y.tolist(), strict=True):
        scores = solver(x.unsqueeze(0))[0].tolist()
        number, within = divmod(code, 2)
        competing = range(2 * number, 2 * number + 2) if scenario == "task" else range(len(scores))
        wanted = within if scenario == "domain" else code
        right += max(competing, key=lambda k: scores[k]) == wanted
    assert 0 < right < 25
    assert accuracy(solver, examples, legend, chunk) == right / 25


def test_accuracy_reads_bytes_as_pixels():
    solver, grey = mlp_solver(SHAPE, CODES, 8), torch.randint(256, (50, *SHAPE), dtype=torch.uint8)
    y = solver(grey / 255).argmax(1)
    assert accuracy(solver, Examples(grey, y), identity(CODES)) == 1.0


def test_accuracy_leaves_modes_and_statistics_alone():
    solver = normed_solver()
    solver[2].eval()  # a part may be frozen on purpose
    modes, before = [part.training for part in solver.modules()], snapshot(solver)
    accuracy(solver, task(0), identity(CODES))
    assert [part.training for part in solver.modules()] == modes
    assert same_bits(solver.state_dict(), before)


def test_rows_are_labelled_as_the_legend_wants():
    rows = labelled(task(1), legend_for("domain", 3, 2))
    assert rows.y.argmax(1).tolist() == [0, 1] * 10
