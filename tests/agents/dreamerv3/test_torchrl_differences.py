"""Where TorchRL leaves the reference: what it computes, what the reference's formula gives, and that ours gives that.

Each test has three numbers: theirs X, the formula Y of danijar/dreamerv3 at e3f0224 in NumPy or SciPy, ours Y. X is
explained too, by its own formula, so that the difference is theirs and no mistake of the comparison. The table is in
``test_torchrl_oracle.py``.
"""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.modules import (
    DreamerV3DiscreteActor,
    DreamerV3ImageDecoder,
    DreamerV3ImageEncoder,
    RSSMPosteriorV3,
    RSSMPriorV3,
    TanhNormal,
)
from torchrl.modules.models.model_based import DreamerActor
from torchrl.objectives import DreamerV3ModelLoss
from torchrl.objectives.dreamer_v3 import two_hot_decode
from torchrl.objectives.value.functional import td_lambda_return_estimate, vec_td_lambda_return_estimate

from agents.dreamerv3.actor import ActionSpec, Actor
from agents.returns import lambda_return
from agents.seeding import torch_generator
from tests.agents.dreamerv3 import by_hand
from tests.agents.dreamerv3.torchrl_modules import DETER, LATENT, UNITS, TorchRLDreamer, our_agent
from worldmodels import distributions as d
from worldmodels.config import WorldModelConfig
from worldmodels.images import ImageDecoder, ImageEncoder
from worldmodels.layers import initialize

pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")


def actor(discrete: bool, width: int, **biases: list[float]) -> Actor:
    """Our actor with constant raw outputs."""
    made = Actor(DETER + LATENT, UNITS, 3, ActionSpec(width, discrete))
    initialize(made, torch.Generator().manual_seed(0))
    for name, bias in biases.items():
        made.outputs[name].weight.data.zero_()
        made.outputs[name].bias.data = torch.tensor(bias)
    return made


def test_discrete_policy_has_no_uniform_mix() -> None:
    """Theirs log(0.99 p + 0.01 / 3), ``heads.Head.categorical`` log p, although configs.yaml lists unimix: 0.01."""
    logits = [0.0, -3.0, -9.0]
    theirs = DreamerV3DiscreteActor(DETER + LATENT, 3, num_cells=UNITS)
    theirs[0].module.logits_head.weight.data.zero_()
    theirs[0].module.logits_head.bias.data = torch.tensor(logits)
    given = TensorDict({"state": torch.zeros(3, LATENT), "belief": torch.zeros(3, DETER)}, [3])
    x = theirs.get_dist(given).log_prob(torch.eye(3)).detach().numpy()
    y = scipy.special.log_softmax(logits)
    np.testing.assert_allclose(x, np.log(0.99 * np.exp(y) + 0.01 / 3), rtol=1e-5)
    assert x[2] - y[2] > 3  # the rarest action is 28 times as likely
    made = actor(True, 3, logits=logits)
    ours, _ = made.log_prob_and_entropy(made(torch.zeros(3, DETER + LATENT)), torch.eye(3))
    np.testing.assert_allclose(ours.detach().numpy(), y, rtol=1e-5)


def test_continuous_policy_is_bounded_and_not_squashed() -> None:
    """Deviation at raw 0: theirs 5 by a biased softplus, ``heads.Head.bounded_normal`` 0.9 sigmoid(2) + 0.1 = 0.893.

    Density of the action 0.9 at mean 0.5 and deviation 0.55: theirs squashes by tanh and divides by its slope.
    """
    theirs = DreamerActor(2, depth=1, num_cells=4)
    theirs(torch.zeros(1, LATENT), torch.zeros(1, DETER))
    for parameter in theirs.parameters():
        parameter.data.zero_()
    _, scale = theirs(torch.zeros(1, LATENT), torch.zeros(1, DETER))
    assert scale[0].tolist() == pytest.approx([5.0, 5.0], rel=1e-3)
    made = actor(False, 1, mean=[float(np.arctanh(0.5))], deviation=[-2.0])
    at_zero = actor(False, 1, mean=[0.0], deviation=[0.0])(torch.zeros(1, DETER + LATENT))["deviation"]
    assert at_zero.item() == pytest.approx(0.9 * scipy.special.expit(2) + 0.1)

    squashed = TanhNormal(torch.tensor([0.5]), torch.tensor([0.55]), upscale=1.0, tanh_loc=False)
    x = squashed.log_prob(torch.tensor([0.9])).item()
    assert x == pytest.approx(scipy.stats.norm(0.5, 0.55).logpdf(np.arctanh(0.9)) - np.log(1 - 0.9**2), rel=1e-4)
    y = scipy.stats.norm(0.5, 0.55).logpdf(0.9)
    ours, _ = made.log_prob_and_entropy(made(torch.zeros(1, DETER + LATENT)), torch.tensor([[0.9]]))
    assert ours.item() == pytest.approx(y, rel=1e-5)
    assert abs(x - y) > 0.3


def test_latents_have_a_uniform_share_without_asking() -> None:
    """A latent of logits (40, 0, 0): their default never draws another class, the reference does at 2/3 of 1 %."""
    count = 30_000
    frequencies = []
    for share in (None, 0.01):
        theirs = RSSMPosteriorV3(4, 1, 3, 2, 2, use_rms_norm=True, **({} if share is None else {"unimix": share}))
        theirs.obs_rnn_to_post_projector[-1].weight.data.zero_()
        theirs.obs_rnn_to_post_projector[-1].bias.data = torch.tensor([40.0, 0.0, 0.0])
        torch.manual_seed(0)
        _, state = theirs(torch.zeros(count, 2), torch.zeros(count, 2))
        frequencies.append(state.detach().mean(0)[1:].sum().item())
    assert frequencies[0] == 0.0
    assert frequencies[1] == pytest.approx(0.02 / 3, abs=0.0019)  # four deviations
    noise = d.gumbel((count, 3, 1), torch.Generator().manual_seed(0), "cpu")
    ours = d.sample_one_hot(d.unimix(torch.tensor([40.0, 0.0, 0.0]).view(3, 1).expand(count, 3, 1), 0.01), noise)
    assert ours.mean(0)[1:].sum().item() == pytest.approx(0.02 / 3, abs=0.0019)


def test_their_recurrence_is_the_references_only_if_asked() -> None:
    sizes = {"action_shape": (3,), "action_dim": 3, "hidden_dim": 8, "rnn_hidden_dim": 16}
    assert type(RSSMPriorV3(**sizes).rnn).__name__ == "GRUCell"
    assert type(RSSMPriorV3(**sizes, recurrent_model="block_gru").rnn).__name__ == "_DreamerV3BlockGRU"


class Written(nn.Module):
    """A world model that answers with given tensors."""

    def __init__(self, answers: dict[str, Tensor]) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, data: TensorDict) -> TensorDict:
        for name, value in self.answers.items():
            data.set(("next", name), value)
        return data


@pytest.fixture(scope="module")
def compared() -> dict:
    """Our losses, and theirs with default settings on our predictions."""
    agent, state = our_agent(True, 3)
    data = agent.cast(by_hand.batch())
    trace, _ = by_hand.traced(agent, state, data, agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    outputs = {name: value.detach() for name, value in trace["world_model"].items()}
    answers = {
        "prior_logits": outputs["prior_logits"].mT,
        "posterior_logits": outputs["logits"].mT,
        "reconstruction": outputs["reconstruction/state"],
        "reward_logits": outputs["reward_logits"],
        "reward": torch.zeros(3, 5, 1),
        "continue_pred": outputs["continue_logits"].unsqueeze(-1),
    }
    loss = DreamerV3ModelLoss(Written(answers))
    loss.set_keys(pixels="observation", reco_pixels="reconstruction")
    after = {"observation": data["observation/state"], "reward": data["reward"].unsqueeze(-1)}
    after["done"] = data["is_terminal"].unsqueeze(-1)
    theirs, _ = loss(TensorDict({"next": after}, [3, 5]))
    return {"theirs": theirs, "ours": trace["maps"], "answers": answers, "data": data}


def test_kl_is_summed_over_latents_before_the_free_nats(compared: dict) -> None:
    """Theirs: each latent of its own bounded by 1 nat, averaged, no uniform share; 0.8 and 0.2 of the two terms."""
    posterior, prior = (compared["answers"][f"{name}_logits"].double().numpy() for name in ("posterior", "prior"))
    p, q = (np.exp(scipy.special.log_softmax(logits, -1)) for logits in (posterior, prior))
    each = (p * np.log(p / q)).sum(-1)
    x = compared["theirs"]["loss_model_kl"].item()
    assert x == pytest.approx(np.maximum(each, 1).mean(), rel=1e-5)  # 0.8 + 0.2 of equal values
    p, q = by_hand.unimix(posterior), by_hand.unimix(prior)
    y = np.maximum((p * np.log(p / q)).sum((-1, -2)), 1)
    assert y.max() > 1 and y.min() == 1 and abs(x - y.mean()) > 0.05
    for name in ("dynamics", "representation"):
        np.testing.assert_allclose(compared["ours"][name].detach().numpy(), y, rtol=1e-4)


def test_reconstructions_stay_in_symlog_space(compared: dict) -> None:
    """Theirs (symlog(prediction) - symlog(target))^2, ``outs.MSE`` (prediction - symlog(target))^2."""
    target = compared["data"]["observation/state"].double().numpy()
    target = np.sign(target) * np.log1p(np.abs(target))
    prediction = compared["answers"]["reconstruction"].double().numpy()
    squashed = np.sign(prediction) * np.log1p(np.abs(prediction))
    x = compared["theirs"]["loss_model_reco"].item()
    assert x == pytest.approx(((squashed - target) ** 2).sum(-1).mean(), rel=1e-5)
    y = ((prediction - target) ** 2).sum(-1)
    np.testing.assert_allclose(compared["ours"]["reconstruction/state"].detach().numpy(), y, rtol=1e-4)
    assert abs(x - y.mean()) > 0.05 * y.mean()


def test_continuation_is_learned_without_asking(compared: dict) -> None:
    assert {name for name, _ in compared["theirs"].items()} == {f"loss_model_{n}" for n in ("kl", "reco", "reward")}
    assert compared["ours"]["continue"].mean() > 0


@pytest.mark.parametrize("reinforce", [True, False])
def test_the_policy_is_improved_by_its_score(reinforce: bool) -> None:
    """``imag_loss``: -weight (log p * advantage + entropy); their default -weight (return / scale + entropy)."""
    agent, state = our_agent(False, 3)
    theirs = TorchRLDreamer(False, 3)
    theirs.load(state)
    theirs.actor_loss.use_reinforce = reinforce
    torch.manual_seed(0)
    start = {"state": torch.zeros(5, LATENT), "belief": torch.randn(5, DETER)}
    losses, imagined = theirs.actor_loss(TensorDict(start, [5]))
    returns, weight = (imagined[name].squeeze(-1).numpy() for name in ("lambda_target", "discount_weight"))
    scale, policy = losses["return_scale"].item(), scipy.stats.norm(imagined["loc"], imagined["scale"])
    entropy = 3e-4 * policy.entropy().sum(-1)
    with torch.no_grad():
        value = two_hot_decode(theirs.critic(imagined["belief"], imagined["state"]), d.symexp_bins(255)).numpy()
    score = -(weight * (policy.logpdf(imagined["action"]).sum(-1) * (returns - value) / scale + entropy)).mean()
    through = -(weight * (returns / scale + entropy)).mean()
    assert abs(score - through) > 0.05
    assert losses["loss_actor"].item() == pytest.approx(score if reinforce else through, rel=1e-4)


def test_vectorized_returns_round_to_float32() -> None:
    """The same formula, but powers of a float32 discount; the loop and ours are exact."""
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 30)) * 10
    last = rng.random(30) < 0.1
    y = by_hand.lambda_returns(reward, np.full(30, 0.997), 0.95 * ~last, value)
    ours = lambda_return(*(torch.from_numpy(x) for x in (reward, np.full(30, 0.997), 0.95 * ~last, value)))
    np.testing.assert_allclose(ours.numpy(), y, rtol=1e-11)
    given = {"next_state_value": value, "reward": reward, "done": last, "terminated": np.zeros(30, bool)}
    given = {name: torch.from_numpy(x).view(1, 30, 1) for name, x in given.items()}
    exact, rounded = (f(0.997, 0.95, **given) for f in (td_lambda_return_estimate, vec_td_lambda_return_estimate))
    np.testing.assert_allclose(exact.flatten().numpy(), y, rtol=1e-11)
    error = np.abs(rounded.flatten().numpy() - y).max()
    assert 1e-9 < error < 1e-4


# Images. Weights of convolutions are [O, I, 5, 5] in both; theirs takes [C, H, W], ours [H, W, C].


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[I, H, W] to [O, H, W] with zero padding."""
    planes = [[scipy.signal.correlate2d(a, k, mode="same") for a, k in zip(x, w, strict=True)] for w in weight]
    return np.array([sum(plane) for plane in planes]) + bias[:, None, None]


def encode(image: np.ndarray, encoder: ImageEncoder, shrink: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x = image.transpose(2, 0, 1) / 255 - 0.5
    for convolution, norm in zip(encoder.convolutions, encoder.norms, strict=True):
        x = shrink(convolve(x, convolution.weight.detach().numpy(), convolution.bias.detach().numpy()))
        x = x / np.sqrt((x**2).mean(0) + 1e-4) * norm.weight.detach().numpy()[:, None, None]
        x = x * scipy.special.expit(x)
    return x.transpose(1, 2, 0).flatten()


def test_images_shrink_by_pooling() -> None:
    """Theirs takes every second pixel of each convolution (stride 2), ``rssm.Encoder`` the largest of four."""
    ours = ImageEncoder(WorldModelConfig(**{"size": "1m"}), {"image": (16, 16, 3)})
    initialize(ours, torch.Generator().manual_seed(0))
    theirs = DreamerV3ImageEncoder(depth=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for n, (convolution, norm) in enumerate(zip(ours.convolutions, ours.norms, strict=True)):
            for mine, other in ((convolution, theirs.layers[3 * n]), (norm, theirs.layers[3 * n + 1])):
                for name, parameter in mine.named_parameters():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
                    getattr(other, name).copy_(parameter)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    x = theirs(torch.from_numpy(image).movedim(-1, 0)).detach().numpy()
    np.testing.assert_allclose(x, encode(image, ours, lambda a: a[:, ::2, ::2]), rtol=1e-3, atol=1e-4)

    def largest(a: np.ndarray) -> np.ndarray:
        channels, height, width = a.shape
        return a.reshape(channels, height // 2, 2, width // 2, 2).max((2, 4))

    y = encode(image, ours, largest)
    np.testing.assert_allclose(ours({"image": torch.from_numpy(image)}).detach().numpy(), y, rtol=1e-3, atol=1e-4)
    assert np.abs(x - y).max() > 0.1


def test_decoded_pixels_lie_between_zero_and_one() -> None:
    """A last layer that says 5 everywhere: theirs draws 5 + 0.5, ``rssm.Decoder`` sigmoid(5) = 0.993."""
    theirs = DreamerV3ImageDecoder(DETER + LATENT, (3, 16, 16), depth=4, num_blocks=4)
    ours = ImageDecoder(WorldModelConfig(size="1m", deter=DETER), {"image": (16, 16, 3)}, LATENT)
    initialize(ours, torch.Generator().manual_seed(0))
    for layer in (theirs.layers[-1], ours.output):
        layer.weight.data.zero_()
        layer.bias.data.fill_(5.0)
    x = theirs(torch.zeros(1, LATENT), torch.zeros(1, DETER))
    assert (x == 5.5).all()
    y = ours(torch.zeros(1, DETER), torch.zeros(1, LATENT))["image"].detach().numpy()
    np.testing.assert_allclose(y, np.full((1, 16, 16, 3), scipy.special.expit(5.0)), rtol=1e-6)
