"""One contract that every generator keeps, then what each family promises, against closed forms.

To hold your own generator to the contract, add a line to `GENERATORS`.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from genreplay_core.adapt import adapted, optimisers
from genreplay_core.generators import (
    VAE,
    WGANGP,
    ClassCode,
    FlowMatching,
    Generator,
    conv_vae,
    conv_wgan,
    dream,
    even,
    gaussian_kl,
    mlp_flow,
    mlp_vae,
    mlp_wgan,
    noise_for,
    sample,
)
from genreplay_core.nets import adam
from genreplay_core.seeds import seeded

SHAPE, CODES, ROWS = (1, 8, 8), 3, 6
CODE = torch.arange(ROWS) % CODES


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES = draw(ROWS, *SHAPE)
WEIGHT = torch.tensor([0.1, 0.3, 0.2, 0.05, 0.15, 0.2])


class Simple(nn.Module):
    """A generator of the plain form: whoever uses it takes the steps."""

    def __init__(self, latent_dim=4):
        super().__init__()
        self.latent_dim = latent_dim
        self.net = nn.Sequential(nn.Linear(latent_dim, 16), nn.BatchNorm1d(16), nn.Linear(16, 64))

    def decode(self, z):
        return self.net(z).sigmoid().view(-1, *SHAPE)

    def train_step(self, x):
        z = torch.randn(len(x), self.latent_dim, device=x.device)
        return F.binary_cross_entropy(self.decode(z), x)


class Independent(Simple):
    """A generator of the plain form that takes its own steps."""

    def __init__(self):
        super().__init__()
        self.optimiser = torch.optim.SGD(self.parameters(), lr=0.5)

    def train_step(self, x):
        loss = super().train_step(x)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss


def both(build, **sizes):
    """A builder's unconditional and conditional generator."""
    name = build.__name__
    return {
        name: partial(build, SHAPE, **sizes),
        f"conditional {name}": partial(build, SHAPE, CODES, **sizes),
    }


OURS = {
    **both(mlp_vae, latent_dim=4, hidden=16),
    **both(conv_vae, latent_dim=4),
    **both(mlp_wgan, latent_dim=4, hidden=16),
    **both(conv_wgan, latent_dim=4),
    **both(mlp_flow, hidden=16),
}
GENERATORS = {
    **OURS,
    "Simple": Simple,
    "Independent": Independent,
}


def built(name, seed=0):
    """The generator called `name`, as a learner would have it."""
    with seeded(seed):
        return adapted(GENERATORS[name]())


def step(generator, x=IMAGES, y=CODE, weight=None, z=None, seed=1, drawn=0):
    """One step; `drawn` numbers are drawn before it."""
    with seeded(seed):
        torch.rand(drawn)
        return generator.train_step(x, y, weight, z)


def state(generator):
    return torch.cat([t.flatten().float() for t in generator.state_dict().values()])


every = pytest.mark.parametrize("name", GENERATORS)
ours = pytest.mark.parametrize("name", OURS)
conditional = pytest.mark.parametrize("name", [n for n in OURS if "conditional" in n])
unconditional = pytest.mark.parametrize("name", [n for n in GENERATORS if "conditional" not in n])
likelihoods = pytest.mark.parametrize("name", [n for n in GENERATORS if "wgan" not in n])

# ---------------------------------------------------------------- the contract: decoding


@every
@pytest.mark.parametrize("size", [1, 100])  # of the noise
def test_decode_makes_images_from_0_to_1(name, size):
    generator = built(name)
    x = dream(generator, size * noise_for(generator, ROWS), CODE)
    assert x.shape == (ROWS, *SHAPE)
    assert x.isfinite().all()
    assert (x >= 0).all()
    assert (x <= 1).all()


@every
def test_different_noise_gives_different_images(name):
    first, second = sample(built(name), 2, torch.zeros(2, dtype=torch.long))
    assert not torch.equal(first, second)


@every
def test_dreams_carry_no_gradient(name):
    assert not sample(built(name), ROWS, CODE).requires_grad


@every
def test_sampling_gives_each_part_its_mode_back_and_changes_nothing(name):
    generator = built(name)
    next(iter(generator.children())).eval()
    modes, before = [m.training for m in generator.modules()], state(generator)
    sample(generator, ROWS, CODE)
    assert [m.training for m in generator.modules()] == modes
    assert torch.equal(state(generator), before)


@every
def test_a_dream_depends_on_its_own_noise_only(name):
    generator = built(name)
    z = noise_for(generator, ROWS)
    alone = torch.cat([dream(generator, z[i : i + 1], CODE[i : i + 1]) for i in range(ROWS)])
    torch.testing.assert_close(dream(generator, z, CODE), alone)


# ---------------------------------------------------------------- the contract: learning


@every
def test_it_keeps_the_protocol(name):
    generator = built(name)
    assert isinstance(generator, Generator)
    assert adapted(generator) is generator


@every
def test_a_step_gives_a_finite_number_without_a_graph_and_learns(name):
    generator = built(name)
    before = [p.detach().clone() for p in generator.parameters()]
    loss = step(generator)
    assert loss.shape == ()
    assert loss.isfinite()
    assert not loss.requires_grad
    assert any(not torch.equal(*pair) for pair in zip(generator.parameters(), before, strict=True))


@ours
def test_under_autocast_it_learns_and_dreams_as_well(name):
    generator, z = built(name), draw(2, 64 if "flow" in name else 4)
    before = state(generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(generator, z=z)
        x = dream(generator, z, CODE[:2])
    assert loss.isfinite()
    assert x.isfinite().all()
    assert x.dtype == torch.float32  # in bfloat16 there would be few greys
    assert not torch.equal(state(generator), before)


@likelihoods
def test_the_loss_falls(name):
    generator = built(name)
    x = IMAGES[:1].round().expand(ROWS, *SHAPE)
    losses = torch.stack([step(generator, x, seed=i) for i in range(60)])
    assert losses[-10:].mean() < 0.95 * losses[:10].mean()


@every
def test_a_row_of_weight_zero_has_no_influence(name):
    weight = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25, 0.0])
    row = (weight == 0).view(-1, 1, 1, 1)
    twins = [built(name), built(name)]
    for twin, x in zip(twins, (IMAGES, torch.where(row, 1 - IMAGES, IMAGES)), strict=True):
        step(twin, x, weight=weight)
    assert torch.equal(state(twins[0]), state(twins[1]))


@every
def test_a_row_with_weight_has_influence(name):
    row = torch.arange(ROWS).view(-1, 1, 1, 1) == 2
    twins = [built(name), built(name)]
    for twin, x in zip(twins, (IMAGES, torch.where(row, 1 - IMAGES, IMAGES)), strict=True):
        step(twin, x, weight=even(x))
    assert not torch.equal(state(twins[0]), state(twins[1]))


@every
def test_without_weights_every_row_counts_alike(name):
    implicit, explicit = built(name), built(name)
    drawn = int("weight" not in getattr(explicit, "step_takes", {"weight"}))  # by the resampling
    losses = step(implicit, drawn=drawn), step(explicit, weight=torch.full((ROWS,), 1 / ROWS))
    assert torch.equal(*losses)
    assert torch.equal(state(implicit), state(explicit))


@ours
@pytest.mark.parametrize("r", [0.5, 0.2])
def test_the_loss_is_the_mixture_of_new_and_old(name, r):
    """Equation 1 of Shin et al. (2017): r of the new rows' loss and 1 - r of the old rows'."""
    new, old = torch.tensor([1 / 2] * 2 + [0.0] * 4), torch.tensor([0.0] * 2 + [1 / 4] * 4)
    mixed, of_new, of_old = (
        step(built(name), weight=weight) for weight in (r * new + (1 - r) * old, new, old)
    )
    torch.testing.assert_close(mixed, r * of_new + (1 - r) * of_old)


@every
def test_optimisers_hold_every_parameter_once(name):
    generator = built(name)
    groups = [group for _, optimiser in optimisers(generator) for group in optimiser.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in generator.parameters())


@every
def test_the_same_seed_gives_the_same_bits(name):
    first, second, other = built(name), built(name), built(name)
    for seed in range(2):
        step(first, weight=WEIGHT, seed=seed)
        step(second, weight=WEIGHT, seed=seed)
        step(other, weight=WEIGHT, seed=seed + 10)
    assert torch.equal(state(first), state(second))
    assert not torch.equal(state(first), state(other))


@every
def test_a_saved_generator_goes_on_as_if_nothing_had_happened(name):
    first, second = built(name), built(name, seed=1)
    step(first)
    second.load_state_dict(first.state_dict())
    for (_, a), (_, b) in zip(optimisers(first), optimisers(second), strict=True):
        b.load_state_dict(copy.deepcopy(a.state_dict()))
    z = noise_for(first, ROWS)
    assert torch.equal(dream(first, z, CODE), dream(second, z, CODE))
    assert torch.equal(step(first), step(second))
    assert torch.equal(state(first), state(second))


@every
def test_a_step_waits_for_no_device(name):
    """On the meta device there are no numbers: a look at one is an error."""
    with torch.device("meta"):
        generator = built(name)
        x, y = torch.empty(ROWS, *SHAPE), torch.empty(ROWS, dtype=torch.long)
        weight, z = torch.empty(ROWS), torch.empty(2, generator.latent_dim)
    loss = step(generator, x, y, weight, z)
    assert loss.device.type == "meta"
    assert sample(generator, ROWS, y).shape == x.shape


@every
def test_a_step_may_be_told_the_noise_of_its_last_rows(name):
    generator = built(name)
    assert step(generator, weight=WEIGHT, z=noise_for(generator, 2)).isfinite()


@unconditional
def test_an_unconditional_generator_does_not_care_for_codes(name):
    first, second = built(name), built(name)
    step(first)
    step(second, y=None)
    assert torch.equal(state(first), state(second))
    z = noise_for(first, ROWS)
    assert torch.equal(dream(first, z, CODE), dream(first, z))


@conditional
def test_a_conditional_generator_cares_for_codes(name):
    first, second = built(name), built(name)
    step(first)
    step(second, y=(CODE + 1) % CODES)
    assert not torch.equal(state(first), state(second))
    z = noise_for(first, ROWS)
    assert not torch.equal(dream(first, z, CODE), dream(first, z, (CODE + 1) % CODES))


@conditional
@pytest.mark.parametrize("rows", [1, 2, CODES])
def test_a_conditional_generator_asks_for_codes_in_one_line(name, rows):
    generator = built(name)
    message = "^this generator is conditional on 3 classes: give their codes as y$"
    with pytest.raises(ValueError, match=message):
        generator.decode(noise_for(generator, rows))
    with pytest.raises(ValueError, match=message):
        generator.train_step(IMAGES[:rows])
    with pytest.raises(ValueError, match=message):
        generator.train_step(IMAGES[:rows], z=noise_for(generator, rows))


def test_a_class_code_is_one_hot_and_comes_last():
    h = draw(2, 2)
    coded = ClassCode(3)(h, torch.tensor([2, 0]))
    assert torch.equal(coded, torch.cat([h, torch.tensor([[0.0, 0, 1], [1, 0, 0]])], 1))
    assert ClassCode(None)(h, torch.tensor([2, 0])) is h


# ---------------------------------------------------------------- networks to reckon with


class Always(nn.Module):
    """The same answer to everything: rows (D,) -> (N, D)."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x):
        return self.answer.expand(len(x), *self.answer.shape)


class Echo(nn.Module):
    """Gives back its first columns, and remembers what it was given."""

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, h):
        self.given = h
        return h[:, : self.columns]


# ---------------------------------------------------------------- variational autoencoder


def test_the_published_vae_has_1069784_parameters():
    """Layers 784-400-400-2x100 and 100-400-400-784, each with biases."""
    encoder = 784 * 400 + 400 + 400 * 400 + 400 + 400 * 200 + 200
    decoder = 100 * 400 + 400 + 400 * 400 + 400 + 400 * 784 + 784
    count = sum(p.numel() for p in mlp_vae((1, 28, 28)).parameters())
    assert count == encoder + decoder == 1_069_784


def test_ten_classes_add_their_codes_and_their_priors():
    plain, classes = mlp_vae((1, 28, 28)), mlp_vae((1, 28, 28), 10)
    counts = [sum(p.numel() for p in vae.parameters()) for vae in (plain, classes)]
    assert counts[1] - counts[0] == 10 * 400 + 10 * 200


def test_kl_is_that_of_torch_distributions():
    mean, logvar, mean_p, logvar_p = (draw(5, 3, seed=i) * 4 - 2 for i in range(4))
    q, p = Normal(mean, logvar.exp().sqrt()), Normal(mean_p, logvar_p.exp().sqrt())
    expected = kl_divergence(q, p).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, logvar, mean_p, logvar_p), expected)
    assert torch.equal(gaussian_kl(mean, logvar, mean, logvar), torch.zeros(5))


@pytest.mark.parametrize("classes", [None, 2])
def test_the_kl_is_of_the_mean_and_deviation_that_latents_are_sampled_with(classes):
    """Measured on the latents that the decoder is given; the rest of the loss is known."""
    posterior = torch.tensor([0.5, -1.0, 0.8, -0.6])  # two means, two log variances
    vae = VAE(Always(posterior), Echo(2), latent_dim=2, classes=classes)
    prior = Normal(torch.zeros(2), torch.ones(2))
    if classes:
        vae.prior.data[1] = torch.tensor([1.0, 0.0, 0.4, -0.2])
        prior = Normal(torch.tensor([1.0, 0.0]), torch.tensor([0.2, -0.1]).exp())
    n = 20_000
    x, y = draw(n, 2), torch.ones(n, dtype=torch.long) if classes else None
    with seeded(0):
        loss = vae.loss(x, y, even(x))
    z = vae.decoder.given[:, :2]
    rebuilt = -Bernoulli(logits=z).log_prob(torch.ones_like(z)) * x
    rebuilt = rebuilt - Bernoulli(logits=z).log_prob(torch.zeros_like(z)) * (1 - x)
    kl = kl_divergence(Normal(z.mean(0), z.std(0)), prior).sum()
    expected = (rebuilt.sum(1).mean() + kl) / 2  # over pixels
    assert loss.item() == pytest.approx(expected.item(), abs=0.01)


def test_the_unconditional_prior_is_a_standard_normal_and_stays_so():
    vae = mlp_vae(SHAPE, latent_dim=4, hidden=16)
    for seed in range(3):
        step(vae, seed=seed)
    z = noise_for(vae, ROWS)
    assert torch.equal(vae.from_prior(z, None), z)
    assert torch.equal(vae.decode(z), vae.decoder(z).sigmoid())
    assert "prior" not in dict(vae.named_parameters())


def test_conditional_decoding_starts_from_the_prior_of_the_class():
    vae = VAE(nn.Linear(2, 4), Echo(2), latent_dim=2, classes=3)
    mean, deviation = torch.tensor([[0.0, 1], [2, -1], [-3, 0]]), draw(3, 2) + 0.5
    vae.prior.data.copy_(torch.cat([mean, 2 * deviation.log()], 1))
    z, y = draw(4, 2) * 2 - 1, torch.tensor([2, 0, 1, 1])
    torch.testing.assert_close(vae.decode(z, y).logit(), mean[y] + deviation[y] * z)
    assert torch.equal(vae.decoder.given[:, 2:], F.one_hot(y, 3).float())


def test_only_the_priors_of_the_classes_met_are_learnt():
    vae = mlp_vae(SHAPE, CODES, latent_dim=4, hidden=16)
    step(vae, y=torch.ones(ROWS, dtype=torch.long))
    assert vae.prior.abs().sum(1).gt(0).tolist() == [False, True, False]


@pytest.mark.parametrize("classes", [None, CODES])
def test_a_dreamt_row_is_to_be_decoded_from_its_own_noise(classes):
    """Its loss is the cross-entropy with what the decoder makes of the noise; no KL, no encoder."""
    vae = mlp_vae(SHAPE, classes, latent_dim=4, hidden=16)
    if classes:
        vae.prior.data.copy_(draw(classes, 8))
    z, weight = noise_for(vae, 2), torch.tensor([0.0] * 4 + [0.7, 0.3])
    now = vae.decode(z, CODE[4:])
    rows = F.binary_cross_entropy(now, IMAGES[4:], reduction="none").flatten(1).mean(1)
    loss = vae.loss(IMAGES, CODE if classes else None, weight, z)
    torch.testing.assert_close(loss, weight[4:] @ rows)


# ---------------------------------------------------------------- Wasserstein GAN


def linear_wgan(slope, **options):
    """A WGAN on four pixels whose critic scores an image x with `slope * x.sum() / 2`."""
    critic = nn.Linear(4, 1)
    nn.init.constant_(critic.weight, slope / 2)  # |w| = slope
    critic = nn.Sequential(nn.Flatten(), critic)
    return WGANGP(Always(torch.zeros(1, 2, 2)), critic, latent_dim=2, **options)


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_its_distance_from_slope_one(slope):
    x, fake = draw(5, 1, 2, 2), draw(5, 1, 2, 2, seed=1)
    penalty = linear_wgan(slope).gradient_penalty(x, fake, None)
    torch.testing.assert_close(penalty, torch.full((5,), (slope - 1) ** 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (0.4, 0.0), (1.0, 0.0), (3.0, 4.0)])
def test_the_one_sided_penalty_is_for_steep_critics_only(slope, expected):
    x, fake = draw(5, 1, 2, 2), draw(5, 1, 2, 2, seed=1)
    penalty = linear_wgan(slope, one_sided=True).gradient_penalty(x, fake, None)
    torch.testing.assert_close(penalty, torch.full((5,), expected), atol=1e-5, rtol=1e-5)


def test_a_flat_critic_gets_a_finite_gradient_from_its_penalty():
    wgan = linear_wgan(0.0)
    wgan.gradient_penalty(draw(5, 1, 2, 2), draw(5, 1, 2, 2, seed=1), None).sum().backward()
    assert wgan.critic[1].weight.grad.isfinite().all()


def test_the_penalty_is_taken_at_one_point_between_each_pair_of_images():
    wgan = WGANGP(Always(torch.zeros(4)), nn.Sequential(Echo(4), nn.Linear(4, 1)), latent_dim=2)
    x, fake = draw(50, 4), draw(50, 4, seed=1)
    with seeded(0):
        wgan.gradient_penalty(x, fake, None)
    share = (wgan.critic[0].given - x) / (fake - x)  # of the way from x to fake, (50, 4)
    torch.testing.assert_close(share, share[:, :1].expand(-1, 4), atol=1e-3, rtol=0)
    assert ((share > -1e-3) & (share < 1 + 1e-3)).all()
    assert share[:, 0].std() > 0.2  # 0.29 if it is even on the way


def test_without_a_penalty_the_critic_loss_is_the_weighted_gap_of_its_scores():
    wgan = linear_wgan(3.0, penalty=0.0)
    fake = wgan.score(torch.full((1, 1, 2, 2), 0.5), None)
    x = draw(ROWS, 1, 2, 2)
    expected = fake.sum() - WEIGHT @ wgan.score(x, None)
    torch.testing.assert_close(wgan.critic_loss(x, None, WEIGHT), expected)


@pytest.mark.parametrize("name", ["mlp_wgan", "conv_wgan"])
def test_the_critic_judges_each_image_alone(name):
    wgan, x = built(name), IMAGES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(wgan.score(x, None)[2], x)
    assert slope.flatten(1).abs().sum(1).gt(0).tolist() == [False, False, True] + [False] * 3


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_each_step_computes_a_gradient_for_its_own_side_only(critic_steps):
    wgan = mlp_wgan(SHAPE, latent_dim=4, hidden=16, critic_steps=critic_steps)
    counts = dict.fromkeys((name for name, _ in wgan.named_parameters()), 0)

    def count(name, gradient):
        counts[name] += 1

    for name, parameter in wgan.named_parameters():
        parameter.register_hook(partial(count, name))
    step(wgan)
    assert {counts[n] for n in counts if n.startswith("critic.")} == {critic_steps}
    assert {counts[n] for n in counts if n.startswith("network.")} == {1}


def test_the_wgan_finds_an_image_by_the_judgement_of_its_critic():
    target = torch.tensor([0.9, 0.1, 0.7, 0.3])
    with seeded(0):
        network, critic = Always(torch.zeros(4)), nn.Linear(4, 1)
        wgan = WGANGP(network, critic, 2, critic_steps=3, lr=(0.03, 0.03))
    images = []
    for _ in range(100):
        wgan.train_step(target.expand(8, 4))
        images.append(sample(wgan, 1)[0])
    circling = torch.stack(images[-40:]).mean(0)  # it doesn't come to rest, but circles the image
    assert (images[0] - target).abs().max() > 0.3
    assert (circling - target).abs().max() < 0.15


@pytest.mark.parametrize("name", ["mlp_wgan", "conditional mlp_wgan"])
def test_a_dreamt_row_pulls_the_wgan_towards_the_image_of_its_noise(name):
    wgan = built(name)
    z, weight = noise_for(wgan, 2), torch.tensor([0.0] * 4 + [0.7, 0.3])
    gap = wgan.decode(z, CODE[4:]) - IMAGES[4:]
    expected = weight[4:] @ gap.flatten(1).square().sum(1)
    torch.testing.assert_close(wgan.generator_loss(IMAGES, CODE, weight, z), expected)


def test_a_dreamt_row_of_known_noise_is_not_shown_to_the_critic():
    first, second = built("mlp_wgan"), built("mlp_wgan")
    z, dreamt = noise_for(first, 2), torch.arange(ROWS).view(-1, 1, 1, 1) >= 4
    step(first, z=z)
    step(second, torch.where(dreamt, 1 - IMAGES, IMAGES), z=z)
    assert torch.equal(state(first.critic), state(second.critic))
    assert not torch.equal(state(first.network), state(second.network))


# ---------------------------------------------------------------- flow matching


@pytest.mark.parametrize("ode_steps", [1, 2, 10])
def test_a_flow_that_knows_one_image_leads_there_from_anywhere(ode_steps):
    logits = 3 * draw(64) - 1  # images between 0.27 and 0.88, where 2 x - 1 doesn't round
    flow = FlowMatching(Always(logits), SHAPE, ode_steps=ode_steps)
    z = 5 * noise_for(flow, ROWS)
    assert torch.equal(flow.decode(z), logits.sigmoid().view(1, *SHAPE).expand(ROWS, *SHAPE))


def test_a_flow_that_knows_the_image_has_nothing_to_learn():
    logits = 3 * draw(64) - 1
    flow = FlowMatching(Always(logits), SHAPE)
    x = logits.sigmoid().view(1, *SHAPE).expand(ROWS, *SHAPE)
    assert flow.loss(x, None, even(x)).item() == pytest.approx(0, abs=1e-10)
    assert flow.loss(1 - x, None, even(x)) > 0.01


class Guide(Always):
    """`Always`, with a note of every point (N, D) and time (N, 1) at which it was asked."""

    def forward(self, x):
        self.points, self.times = [*getattr(self, "points", []), x[:, :-1]], x[:, -1:]
        return super().forward(x)


def test_sampling_goes_straight_from_the_noise_to_the_image():
    flow = FlowMatching(Guide(3 * draw(64) - 1), SHAPE, ode_steps=5)
    z = noise_for(flow, ROWS)
    end = 2 * flow.decode(z).flatten(1) - 1
    path = [torch.lerp(z, end, share) for share in (0.0, 0.2, 0.4, 0.6, 0.8)]
    torch.testing.assert_close(torch.stack(flow.network.points), torch.stack(path))
    assert flow.network.times.unique().item() == pytest.approx(0.8)


def test_training_asks_everywhere_on_the_way_from_normal_noise_to_the_image():
    flow = FlowMatching(Guide(torch.zeros(64)), SHAPE)
    x = draw(500, *SHAPE)
    with seeded(0):
        flow.loss(x, None, even(x))
    (points,), t = flow.network.points, flow.network.times
    noise = ((points - t * (2 * x.flatten(1) - 1)) / (1 - t))[t.squeeze(1) < 0.9]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert t.mean().item() == pytest.approx(0.5, abs=0.05)
    assert t.std().item() == pytest.approx(12**-0.5, abs=0.03)  # of the uniform distribution


def test_the_path_to_a_dreamt_row_begins_at_its_own_noise():
    flow = FlowMatching(Guide(torch.zeros(64)), SHAPE)
    z = noise_for(flow, 2)
    flow.loss(IMAGES, None, WEIGHT, z)
    (points,), t = flow.network.points, flow.network.times
    end = 2 * IMAGES.flatten(1) - 1
    torch.testing.assert_close(points[4:], (1 - t[4:]) * z + t[4:] * end[4:])


# ---------------------------------------------------------------- a reader's own generator


class Empty(nn.Module):
    """Lacks everything."""


class Half(Empty):
    latent_dim = 4

    def decode(self, z):
        return z


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda z: z, "^a generator must be an nn.Module, got function$"),
        (Simple, "^a generator must be an nn.Module, got type$"),
        (Empty(), r"^Empty lacks latent_dim, decode, train_step: a generator needs .+\(x\)$"),
        (Half(), r"^Half lacks train_step: a generator needs .+\(x\)$"),
    ],
)
def test_what_is_no_generator_is_refused_in_one_line(wrong, message):
    with pytest.raises(TypeError, match=message):
        adapted(wrong)


@ours
def test_a_generator_that_keeps_the_whole_protocol_is_used_as_it_is(name):
    generator = OURS[name]()
    assert adapted(generator) is generator


def test_a_generator_without_an_optimiser_is_stepped_by_adam():
    with seeded(0):
        by_hand = Simple()
    optimiser = adam(by_hand.parameters(), lr=1e-3)
    plain = built("Simple")
    for seed in range(3):
        with seeded(seed):
            optimiser.zero_grad()
            by_hand.train_step(IMAGES).backward()
            optimiser.step()
        step(plain, seed=seed)
    assert torch.equal(state(plain), state(by_hand))


def test_a_generator_with_an_optimiser_is_left_to_step_itself():
    with seeded(0):
        alone = Independent()
    with seeded(1):
        alone.train_step(IMAGES)
    plain = built("Independent")
    step(plain)
    assert torch.equal(state(plain), state(alone))


def test_a_generator_that_cannot_learn_is_welcome():
    """A loss that is a mere number, and no parameter: there is nothing to step."""

    class Sky(Half):
        def train_step(self, x):
            return 1.5

    generator = adapted(Sky())
    assert step(generator) == 1.5
    assert sample(generator, 3, CODE[:3]).shape == (3, 4)


def test_rows_are_repeated_for_a_generator_that_cannot_weight_them():
    generator, seen = Simple(), []
    generator.train_step = lambda x, y: seen.extend([x, y]) or 0.0
    weight = torch.tensor([0.5, 0.0, 1 / 6, 1 / 6, 1 / 6, 0.0])
    step(adapted(generator), weight=weight)
    rows = torch.tensor([0, 0, 0, 2, 3, 4])
    assert torch.equal(seen[0], IMAGES[rows])
    assert torch.equal(seen[1], CODE[rows])


def test_a_generator_is_given_what_it_has_a_parameter_for():
    generator, seen = Simple(), []
    generator.train_step = lambda batch, weight, z: seen.extend([batch, weight, z]) or 0.0
    generator.decode = lambda z, y: y
    plain, z = adapted(generator), draw(2, 4)
    step(plain, weight=WEIGHT, z=z)
    assert all(a is b for a, b in zip(seen, (IMAGES, WEIGHT, z), strict=True))
    assert plain.decode(draw(ROWS, 4), CODE) is CODE


def test_codes_stay_away_from_a_decode_that_takes_none():
    """Even if the rest of the protocol is there."""

    class Whole(Independent):
        def train_step(self, x, y=None, weight=None, z=None):
            return super().train_step(x)

    assert sample(adapted(Whole()), ROWS, CODE).shape == IMAGES.shape
