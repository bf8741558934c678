"""Re-ReST: failed samples are repaired by a reflector before self-training."""

from etude.credit.example import TASK, tried
from etude.credit.mistakes import repaired
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.second import Refine
from etude.settings import stage
from etude.types import Group


def _rows() -> list[float]:
    """Trained tokens per signal, of a right answer and of a wrong one that was repaired."""
    group = Group(TASK, (tried(([3], True)), tried(([4, 5], False), ([6, 7, 8], True))))
    return [float(s.weights["imitation"].sum()) for s in repaired()([group])]


RECIPE = Recipe(
    name="re_rest",
    family="self_correction",
    n=66,
    paper=Paper("Re-ReST: Reflection-Reinforced Self-Training for Language Agents", "2406.01495", 2024),
    idea="Self-training keeps the answers that were right and throws the others away. "
    "Here a wrong answer is given back with what the environment said of it, and if its repair is right, that is kept as well. "
    "Repairs are stored as answers to the bare question, and the model also learns to repair.",
    equation="L = - mean_t log pi(y_t | x) over right y and right repairs;  - mean_t log pi(y_t | x, wrong y, feedback)",
    departures=(
        "agent and reflector are one model, trained together, where the paper gives each its own LoRA and trains the reflector first",
        "one round per step, from the current weights",
        "only first actions of worlds that were not repaired teach the reflector",
    ),
    confidence="memory",
    stages={
        "rollout": stage(Refine, critic="feedback"),
        "reward": stage(each_attempt),
        "credit": stage(repaired),
        "objective": stage(cross_entropy),
    },
    claim="With telling feedback more tasks have a right sample, and accuracy exceeds that of self-training at equal samples.",
    examples=(
        ByHand("one right; one repaired: for the agent and for the reflector", _rows, [1, 3, 3]),
        Reduction(
            "nothing is repaired: rejection-sampling fine-tuning",
            "rft",
            {"rollout.second": 0.0},
            {"credit.distinct": False},
        ),
    ),
)
