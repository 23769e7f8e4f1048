"""TorchRL's DreamerV3 with our weights computes what ours computes, to float32's precision.

TorchRL 0.14 has an implementation of its own, by other people. Where it follows the reference (danijar/dreamerv3 at
e3f0224), the tests here hold ours to it: outputs, every loss, and the gradient of the whole objective by every
parameter. Where it does not, ``test_torchrl_differences.py`` computes both and the reference's formula. Who follows:

================================  =======  =====  =============================================================
part (theirs)                     TorchRL  ours   the reference, and what differs
================================  =======  =====  =============================================================
block GRU (``RSSMPriorV3``)       yes      yes    ``rssm.RSSM._core``; only with recurrent_model="block_gru", the
                                                  default is a plain GRU on concat(state, action)
``DreamerV3BlockGRUCell``         no       -      projects its input as a whole, ``_core`` latent and action each;
                                                  TorchRL's own DreamerV3 does not use it, nor is it compared
prior, posterior                  yes      yes    ``_prior``, ``_observe``; the posterior only with use_rms_norm
uniform share of latents          asked    yes    ``outs.Categorical(unimix)``, 0.01 there; their default is 0
resets, acting                    yes      yes    ``RSSM._observe`` masks deter, stoch and the action
vector encoder, decoder, heads    yes      yes    ``nets.MLP``; the table of what they see is in rssm.py, agent.py
two-hot, symlog, symexp           yes      yes    ``outs.TwoHot``, ``heads.Head.symexp_twohot``
KL, kl_mode="separate"            yes      yes    ``RSSM.loss``: sum over latents, then free nats
KL, their default "balanced"      no       -      bounds each latent alone, averages latents, 0.8 and 0.2
vector reconstruction             no       yes    ``outs.MSE(squash=symlog)`` takes symlog of the target alone; theirs
                                                  of the prediction too: same only if it is decoded to raw units
continue loss                     asked    yes    ``Agent.loss``: contdisc; their default has no such loss
lambda-return in imagination      yes      yes    ``lambda_return``; theirs with gamma 1 and a continuation model
td_lambda_return_estimate         yes      yes    ``lambda_return`` with terminals and time-outs
vec_td_lambda_return_estimate     1e-7     yes    the same, but its powers of the discount are float32
return range                      yes      yes    ``utils.Normalize(perc)``, ``PercentileValueNorm``
actor loss, use_reinforce=True    yes      yes    ``imag_loss``; weights hold the first continuation
actor loss, their default         no       -      maximizes the return through the model, without a baseline
discrete policy                   no       yes    ``heads.Head.categorical`` has no uniform mix, theirs mixes 1 %
continuous policy                 no       yes    ``heads.Head.bounded_normal``; theirs is softplus, squashed by tanh
critic and slow critic losses     asked    yes    ``imag_loss``; value_loss="two_hot", slow_critic_regularization=1
replayed value loss               yes      yes    ``repl_loss``
slow critic (``SoftUpdate``)      yes      yes    ``utils.SlowModel``, rate 0.02
optimizer                         yes      yes    ``Agent._make_opt``, warm-up from 0 (``DreamerV3Optimizer``)
image encoder                     no       yes    ``rssm.Encoder``: stride 1 and max-pooling, theirs stride 2
image decoder                     no       yes    ``rssm.Decoder``: repeats pixels, sigmoid; theirs transposes, no bound
================================  =======  =====  =============================================================
"""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules import PercentileValueNorm, RSSMStateEstimatorV3
from torchrl.objectives import SoftUpdate
from torchrl.objectives.dreamer_v3 import symexp, symlog, two_hot_cross_entropy, two_hot_decode, two_hot_encode
from torchrl.objectives.value.functional import td_lambda_return_estimate, vec_td_lambda_return_estimate
from torchrl.trainers.algorithms.dreamer_v3 import DreamerV3Optimizer

from agents.optimizer import laprop_step
from agents.returns import lambda_return, update_return_range
from agents.seeding import torch_generator
from tests.agents.dreamerv3 import by_hand
from tests.agents.dreamerv3.torchrl_modules import CLASSES, DETER, LATENT, STOCH, TorchRLDreamer, our_agent
from worldmodels import distributions as d

HORIZON = 4
CERTAIN = 1e4  # Gumbel noise that no other class can beat

pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")  # the tests move it themselves


def pair(discrete: bool) -> tuple:
    """Our agent and state, and TorchRL's modules with the same weights."""
    agent, state = our_agent(discrete, HORIZON)
    theirs = TorchRLDreamer(discrete, HORIZON)
    theirs.load(state)
    return agent, state, theirs


def class_major(state: Tensor) -> Tensor:
    """TorchRL's flat latent [..., S * C] in our layout [..., C, S]."""
    return state.unflatten(-1, (STOCH, CLASSES)).mT


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    """Largest difference, relative to the largest magnitude."""
    assert ours.shape == theirs.shape
    difference = (ours.detach().double() - theirs.detach().double()).abs().max()
    assert difference <= tolerance * theirs.detach().double().abs().max().clamp_min(1e-3), float(difference)


@pytest.fixture(scope="module", params=[True, False], ids=["discrete", "continuous"])
def update(request: pytest.FixtureRequest) -> dict:
    """One objective, theirs with samples of their own, ours with noise that leads to the same samples."""
    discrete = request.param
    agent, state, theirs = pair(discrete)
    data = agent.cast(by_hand.batch(discrete))
    rows, length = data["reward"].shape
    previous = torch.cat([torch.zeros(rows, 1, 3), data["action"][:, :-1]], 1)
    after = {"observation": data["observation/state"], "reward": data["reward"], "done": data["is_last"]}
    after["terminated"] = data["is_terminal"]
    sample = {
        "state": torch.zeros(rows, length, LATENT),
        "belief": torch.zeros(rows, length, DETER),
        "action": previous,
        "is_init": data["is_first"].unsqueeze(-1),
        "next": {name: value if value.dim() == 3 else value.unsqueeze(-1) for name, value in after.items()},
    }
    seen: dict[str, TensorDict] = {}
    theirs.model_loss.register_forward_hook(lambda module, given, result: seen.update(posterior=result[1]["next"]))
    theirs.actor_loss.register_forward_hook(lambda module, given, result: seen.update(imagined=result[1]))
    torch.manual_seed(0)
    losses = theirs.loss(TensorDict(sample, [rows, length]))
    sum(value for name, value in losses.items() if str(name).startswith("loss_")).backward()
    imagined = seen["imagined"]
    action = imagined["action"].movedim(1, 0)
    noise = {
        "posterior": CERTAIN * class_major(seen["posterior"]["state"]).detach().round(),
        "prior": CERTAIN * class_major(imagined["next", "state"]).movedim(1, 0).round(),
    }
    if discrete:
        noise["action"] = CERTAIN * action.float()
    else:
        noise["action"] = (action - imagined["loc"].movedim(1, 0)) / imagined["scale"].movedim(1, 0)
    trace, leaves = by_hand.traced(agent, state, data, noise)
    return {"state": state, "trace": trace, "leaves": leaves, "theirs": theirs, "losses": losses, **seen}


def test_posterior_and_prior_over_a_sequence(update: dict) -> None:
    """With resets within two rows; most classes of most latents are drawn somewhere."""
    ours, theirs = update["trace"]["world_model"], update["posterior"]
    close(ours["deter"], theirs["belief"])
    close(ours["stoch"], class_major(theirs["state"]))
    close(ours["logits"], theirs["posterior_logits"].mT)
    close(ours["prior_logits"], theirs["prior_logits"].mT)
    assert (ours["stoch"].detach().round().sum((0, 1)) > 0).sum() >= 9


def test_predictions_of_the_world_model(update: dict) -> None:
    ours, theirs = update["trace"]["world_model"], update["posterior"]
    close(ours["reward_logits"], theirs["reward_logits"])
    close(ours["continue_logits"], theirs["continue_pred"].squeeze(-1))
    close(d.symexp(ours["reconstruction/state"]), theirs["reconstruction"])


def test_imagination_and_returns(update: dict) -> None:
    rollout, extras, theirs = update["trace"]["rollout"], update["trace"]["imagination"], update["imagined"]
    latents = {name: torch.stack([step[name] for step in rollout["latents"]]) for name in ("deter", "stoch")}

    def early(name: str | tuple[str, str]) -> Tensor:
        return theirs[name].movedim(1, 0)

    close(latents["deter"][1:], early(("next", "belief")))
    close(latents["stoch"][1:], class_major(early(("next", "state"))))
    close(rollout["action"], early("action").float())
    close(rollout["reward"][1:], early(("next", "reward")).squeeze(-1))
    close(rollout["continue"][:-1], early("continuation").squeeze(-1))
    close(extras["returns"], early("lambda_target").squeeze(-1))
    close(extras["weight"][:-1], early("discount_weight").squeeze(-1))
    for name in ("low", "high", "scale"):
        close(extras[name], update["losses"][f"return_{name}"])
    assert extras["scale"] > 1


def test_all_losses(update: dict) -> None:
    """Their entries hold the weights 0.1 and 0.3; several KL terms are above the free nat and several below."""
    ours = update["trace"]["losses"]
    expected = {
        "loss_model_dynamic": ours["dynamics"],
        "loss_model_representation": 0.1 * ours["representation"],
        "loss_model_reco": ours["reconstruction/state"],
        "loss_model_reward": ours["reward"],
        "loss_model_continue": ours["continue"],
        "loss_actor": ours["policy"],
        "loss_value": ours["value"],
        "loss_replay_value": 0.3 * ours["replay_value"],
    }
    assert {name for name, _ in update["losses"].items() if name.startswith("loss_")} == set(expected)
    for name, value in expected.items():
        close(value, update["losses"][name])
    free = update["trace"]["maps"]["dynamics"] > 1
    assert 3 <= free.sum() <= 12
    assert ours["continue"] > 0.1 and ours["replay_value"] > 1


def test_gradient_of_the_objective_by_every_parameter(update: dict) -> None:
    """All losses together, straight-through estimates and gradients through time included."""
    hyperparameters = update["state"]["hyperparameters"]
    scaled = [
        value * hyperparameters[f"{name.split('/')[0]}_scale"] for name, value in update["trace"]["losses"].items()
    ]
    trained = {name: leaf for name, leaf in update["leaves"].items() if not name.startswith("slow_critic.")}
    gradients = dict(zip(trained, torch.autograd.grad(sum(scaled), list(trained.values())), strict=True))
    compared = 0
    for name, parameter, change in update["theirs"].pairs():
        if name in gradients:
            ours, theirs = change(gradients[name]), parameter.grad
            distance = torch.linalg.vector_norm(ours - theirs)
            assert distance <= 1e-4 * torch.linalg.vector_norm(theirs) + 1e-7, (name, float(distance))
            assert theirs.abs().max() > 1e-6, name
            compared += 1
    assert compared == len(update["state"]["parameters"].keys())


def test_acting() -> None:
    """One step of filtering with and without reset; actions beyond 1 shrink to it."""
    agent, state, theirs = pair(discrete=False)
    rng = np.random.default_rng(5)
    index = rng.integers(0, CLASSES, (6, STOCH))
    carry = {
        "deter": torch.from_numpy(rng.normal(size=(6, DETER))).float(),
        "stoch": class_major(torch.from_numpy(np.eye(CLASSES)[index]).float().flatten(-2)),
        "action": torch.from_numpy(rng.normal(size=(6, 3)) * 2).float(),
    }
    records = {
        "observation/state": torch.from_numpy(rng.normal(size=(6, 4)) * 5).float(),
        "is_first": torch.tensor([True, False] * 3),
        "context": torch.zeros(6, 0),
    }
    given = {
        "state": carry["stoch"].mT.flatten(-2),
        "belief": carry["deter"],
        "previous_action": carry["action"],
        "encoded_latents": theirs.encoder(symlog(records["observation/state"])),
        "is_init": records["is_first"],
    }
    torch.manual_seed(0)
    with torch.no_grad():
        expected = RSSMStateEstimatorV3(theirs.prior, theirs.posterior)(TensorDict(given, [6]))
        policy = theirs.actor.get_dist(expected)
    drawn = CERTAIN * class_major(expected["state"]).round()
    action, latent = agent.act(state, carry, records, {"posterior": drawn, "action": torch.full((6, 3), 0.7)})
    close(latent["deter"], expected["belief"])
    close(latent["stoch"], class_major(expected["state"]))
    close(action, policy.mean + 0.7 * policy.base_dist.scale)


@pytest.mark.parametrize("warmup", [0, 3])
def test_optimizer_over_six_steps(warmup: int) -> None:
    """The same gradients to both: large, small, zero; parameters below the norm floor and of norm zero."""
    rng = np.random.default_rng(0)
    sizes = {(3, 4): 1.0, (5,): 1e-5, (2, 2, 2): 30.0, (6,): 0.0}
    start = [torch.from_numpy(rng.normal(size=size) * scale).float() for size, scale in sizes.items()]
    ours, theirs = [value.clone() for value in start], [torch.nn.Parameter(value.clone()) for value in start]
    rms, momentum = ([torch.zeros_like(value) for value in start] for _ in range(2))
    optimizer = DreamerV3Optimizer(theirs, lr=1e-2, warmup_steps=warmup)
    for n in range(6):
        gradients = [torch.from_numpy(rng.normal(size=s) * 10.0 ** rng.integers(-6, 4)).float() for s in sizes]
        gradients[n % 4].zero_()
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        rate = torch.tensor(1e-2 * (min(1.0, n / warmup) if warmup else 1.0))
        laprop_step(ours, gradients, rms, momentum, torch.tensor(n + 1), rate, torch.tensor(0.3))
        for one, other in zip(ours, theirs, strict=True):
            close(one, other)
    assert all((one != value).any() for one, value in zip(ours, start, strict=True))


def test_slow_critic_after_an_update() -> None:
    """Our update moves critic and slow critic; SoftUpdate moves theirs from the same start to the same new critic."""
    agent, state, theirs = pair(discrete=True)
    updater = SoftUpdate(theirs.value_loss, tau=0.02)  # which makes them equal
    theirs.load(state)
    before = {name: value.clone() for name, value in state["slow"].items()}
    state["hyperparameters", "warmup"].zero_()
    state["hyperparameters", "learning_rate"].fill_(0.1)
    agent.update(state, agent.cast(by_hand.batch()), agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    critic = {name: tensor for name, tensor, _ in theirs.pairs() if name.startswith("critic.")}
    changes = {name: change for name, _, change in theirs.pairs()}
    with torch.no_grad():
        for name, tensor in critic.items():
            tensor.copy_(changes[name](state["parameters", name]))
    updater.step()
    online = theirs.value_loss.value_model_params.flatten_keys(".")
    targets = theirs.value_loss.target_value_model_params.flatten_keys(".")
    names = {tensor.data_ptr(): name for name, tensor in critic.items()}
    compared = set()
    for key, tensor in online.items():
        if name := names.get(tensor.data_ptr()):
            slow = state["slow", f"slow_{name}"]
            close(changes[f"slow_{name}"](slow), targets[key])
            assert (slow != before[f"slow_{name}"]).any()
            compared.add(name)
    assert compared == set(critic) and len(compared) == 11


def test_return_range_over_five_updates() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = PercentileValueNorm()
    low, high = torch.tensor(0.0), torch.tensor(0.0)
    for n in range(5):
        returns = torch.randn(6, 7, generator=generator) * 10**n + n
        theirs.update(returns.flatten().unsqueeze(-1))
        low, high = update_return_range(low, high, returns, torch.tensor(0.01))
        close(low, theirs.low[0])
        close(high, theirs.high[0])
        close((high - low).clamp_min(1.0), theirs.scale()[0])
    assert high - low > 1


def test_two_hot_and_symlog() -> None:
    """Encoding (read out of our loss by its gradient), decoding and cross-entropy in float64, outside the bins too."""
    generator = torch.Generator().manual_seed(0)
    bins = d.symexp_bins(255).double()
    magnitude = 10 ** torch.linspace(-6, 9, 200, dtype=torch.float64)
    targets = torch.cat([-magnitude, magnitude, torch.zeros(1), bins])
    logits = torch.randn(len(targets), 255, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = d.twohot_loss(logits, targets.unsqueeze(-1), bins).squeeze(-1)
    torch.testing.assert_close(loss, two_hot_cross_entropy(logits, targets, bins), rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    encoding = torch.softmax(logits.detach(), -1) - gradient
    torch.testing.assert_close(encoding, two_hot_encode(targets, bins), rtol=0, atol=1e-9)
    torch.testing.assert_close(d.twohot_mean(logits, bins), two_hot_decode(logits, bins), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(d.symlog(targets), symlog(targets), rtol=1e-12, atol=0)
    torch.testing.assert_close(d.symexp(d.symlog(targets)), symexp(symlog(targets)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("estimate", "tolerance"), [(td_lambda_return_estimate, 1e-12), (vec_td_lambda_return_estimate, 1e-6)]
)
@pytest.mark.parametrize("continues", [False, True])
def test_lambda_returns_with_terminals_and_time_outs(estimate: object, tolerance: float, continues: bool) -> None:
    """Episodes of all lengths, with one discount or with a predicted continuation for each step."""
    generator = torch.Generator().manual_seed(1)
    reward, value, predicted = (torch.rand(12, 40, generator=generator, dtype=torch.float64) for _ in range(3))
    last = torch.rand(12, 40, generator=generator) < 0.25
    terminal = last & (torch.rand(12, 40, generator=generator) < 0.5)
    assert terminal.sum() > 20 and (last & ~terminal).sum() > 20
    gamma = 0.5 + predicted / 2 if continues else torch.full_like(reward, 0.997)
    ours = lambda_return(reward, gamma * (~terminal), 0.95 * (~last).double(), value)
    shaped = {"next_state_value": value, "reward": reward, "done": last, "terminated": terminal}
    shaped = {name: tensor.T.unsqueeze(-1) for name, tensor in shaped.items()}
    theirs = estimate(gamma.T.unsqueeze(-1) if continues else 0.997, 0.95, **shaped)
    torch.testing.assert_close(ours, theirs.squeeze(-1).T, rtol=tolerance, atol=tolerance)
