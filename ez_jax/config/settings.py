"""Every setting of ez_jax: frozen dataclasses, one per component.

The defaults are the published EfficientZero V1 settings for Atari-100k (`preset=efficientzero`
changes nothing); other presets are dictionaries of differences. Three clocks are used everywhere:
`agent_steps` (decisions of the agent, over all environments), `env_frames` (agent_steps times the
frame skip) and `updates` (optimiser steps).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EnvConfig:
    """What the agent sees and how long an episode is; the image settings apply to Atari only."""

    backend: str = "auto"  # envpool | gymnasium | auto (envpool if it has the game)
    image_size: int = 96  # height and width of an Atari frame
    grayscale: bool = False  # one channel instead of RGB
    frame_stack: int = 4  # frames in one observation
    frame_skip: int = 4  # frames per agent step of Atari and DeepMind Control
    noop_max: int = 30  # at most so many random no-ops at the start of a game
    episodic_life: bool = True  # in training, a lost life ends the episode
    reward_clip: bool = True  # in training, learn from the sign of the reward
    sticky_actions: float = 0.0  # probability that the game repeats its last action
    max_episode_steps: int = 3_000  # agent steps, training; longer episodes are truncated
    eval_max_episode_steps: int = 27_000  # agent steps, evaluation; see eval.max_episode_steps


@dataclass(frozen=True)
class NetworkConfig:
    """Kind and sizes of the networks."""

    kind: str = "auto"  # image | vector | auto (from the observation space)
    channels: int = 64  # latent image channels
    patch: int = 0  # large images: side of the patches in pixels; 0: the published stem
    blocks: int = 1  # residual blocks at the latent resolution
    norm: str = "batch"  # images: batch | batch_per_depth | sample | layer; vectors: always layer
    norm_momentum: float = 0.9  # batch*: of the running statistics; 0.1 in PyTorch's terms
    center: bool = False  # images: subtract a running mean image, for screens that hardly change
    action_channels: int = 0  # images: width of an embedding of the action plane (V2: 16); 0: none
    head_channels: int = 16  # 1x1 convolution in front of each head
    head_hidden: int = 32  # hidden width of the value, policy and prefix heads
    head_layers: int = 1  # hidden layers of these heads
    policy_hidden: int = 0  # hidden width of the policy head alone; 0: head_hidden
    head_activation: str = "relu"  # in the heads: relu | elu (V2)
    lstm_width: int = 512  # value-prefix LSTM; 0: none, only with value_prefix=false
    projection: int = 1024  # SimSiam projector: hidden and output width
    predictor_hidden: int = 512  # SimSiam predictor
    state_norm: bool = False  # scale every state to 0..1: MuZero, an option of EfficientZero
    support: int = 300  # 2 * support + 1 bins each for value and prefix, in transformed units
    value_bin: float = 1.0  # width of a value's bins, which cover -support..support times this
    prefix_bin: float = 1.0  # likewise of a value prefix's
    vector_width: int = 128  # latent width for vector observations
    vector_blocks: int = 2  # residual blocks for vector observations
    scale_observations: bool = False  # vectors: by their running mean and deviation


@dataclass(frozen=True)
class SearchConfig:
    """Monte-Carlo tree search in the learned model (mctx)."""

    policy: str = "puct_ez"  # puct_ez (published V1) | puct (mctx's MuZero) | gumbel
    tree: str = "auto"  # mctx | flat (no loops of unknown length) | auto (flat, on a CPU mctx)
    num_simulations: int = 50  # gumbel: 0 for V2's choice by the number of actions
    min_q_range: float = 0.01  # puct_ez, gumbel: smallest range by which Qs are scaled
    minmax: str = "parent"  # puct_ez: rewards in the tree's bounds relative to parent | official
    dirichlet_fraction: float = 0.25  # puct*: share of noise in the root prior
    dirichlet_alpha: float = 0.3  # puct*: of that noise; a smaller alpha favours fewer actions
    pb_c_init: float = 1.25  # puct*: weight of the prior against the value
    pb_c_base: float = 19_652.0  # puct*: visits after which that weight grows
    max_considered_actions: int = 8  # gumbel: actions sampled at the root; 0: V2's choice
    gumbel_scale: float = 1.0  # gumbel: noise at the root while training
    value_scale: float = 0.1  # gumbel: weight of the values in the improved policy (c_scale)
    maxvisit_init: float = 50.0  # gumbel: c_visit
    root_candidates: int = 16  # continuous actions: drawn at the root, from the policy
    node_candidates: int = 2  # continuous: likewise at every other node
    widened: float = 0.75  # continuous: share of the root's from a wider policy while training
    widening: float = 3.0  # continuous: factor of that policy's deviation
    candidate_target: str = "auto"  # continuous: improved (policy) | winner | auto: by dimension
    temperatures: tuple[float, ...] = (1.0, 0.5, 0.25)  # puct*: acting temperature by phase
    temperature_fractions: tuple[float, ...] = (
        0.5,
        0.75,
    )  # where phases begin, as shares of the updates


@dataclass(frozen=True)
class ActorConfig:
    """Collecting experience."""

    num_envs: int = 4  # games played side by side
    random_start: bool = True  # uniform actions until learner.start; false (V2): search at once


@dataclass(frozen=True)
class ReplayConfig:
    """Prioritised replay."""

    capacity: int = 100_000  # agent steps kept
    memory: str = "device"  # where frames are kept: device | host | auto (the device if they fit)
    priority_exponent: float = 0.6  # alpha
    importance_exponent: float = 0.4  # beta at the start; linear to importance_exponent_final
    importance_exponent_final: float = 1.0  # beta at the end of the run
    min_weight: float = 0.0  # smallest importance weight (the largest is 1); V2: 0.1


@dataclass(frozen=True)
class ReanalyseConfig:
    """Searching old data again with the target network."""

    mode: str = "batch"  # batch (for every update) | buffer (kept for max_age updates) | none
    ratio: float = 0.99  # batch: share of samples searched; the rest keeps the actor's search
    max_age: int = 1_000  # buffer: updates; older results are searched again when sampled
    chunk: int = 256  # buffer: roots searched at once
    updates_per_search: int = 1  # updates whose samples are searched together


@dataclass(frozen=True)
class TargetsConfig:
    """Regression targets of the unrolled loss."""

    value: str = "td"  # td | search (a fresh search at the state itself) | mixed (V2)
    mixed_updates: int = 30_000  # mixed: td during this many updates, then search
    mixed_newest: int = 5_000  # mixed: always td for this many newest agent steps
    td_steps: int = 5  # n of the n-step value, before the off-policy correction
    max_td_steps: int = 0  # limit of n after the correction (official: 5); 0: td_steps
    age_fraction: float = 0.3  # td_steps falls by 1 per this share of total_agent_steps in age
    block_length: int = 0  # cut episodes into blocks of so many steps (official: 400); 0: whole


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms, by name."""

    policy: float = 1.0  # cross entropy with the policies of searches
    value: float = 0.25  # cross entropy with the value targets
    value_prefix: float = 1.0  # cross entropy with the sums of rewards
    consistency: float = 2.0  # negative cosine of imagined and observed states
    entropy: float = 0.0  # negative entropy of the policy


@dataclass(frozen=True)
class LearnerConfig:
    """The unrolled update."""

    batch_size: int = 256  # sequences per update
    unroll_steps: int = 5  # model steps of each sequence
    lstm_horizon_len: int = 5  # model steps between resets of the value prefix
    start: int = 2_000  # agent steps before the first update
    optimizer: str = "sgd"  # sgd | adam
    learning_rate: float = 0.2  # after the warm-up
    momentum: float = 0.9  # sgd
    weight_decay: float = 1e-4  # L2, added to the clipped gradient
    max_grad_norm: float = 5.0  # gradients with a larger global norm are scaled down to it
    warmup_updates: int = 1_000  # over which the learning rate rises from 0; 0: no warm-up
    decay_every: int = 100_000  # updates between two decays, after the warm-up
    decay_rate: float = 0.1  # factor of each decay
    target_period: int = 200  # updates; the target network is one to two periods old
    augment: bool = True  # random shift and intensity; only of images at least 16 shifts wide
    augment_shift: int = 4  # pixels
    augment_intensity: float = 0.05  # standard deviation of the brightness factor
    max_skipped: int = 100  # the run fails after so many non-finite updates in a row; 0: never


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation: full episodes with seeds of their own, without noise unless `epsilon` is set."""

    every: int = 10_000  # agent steps; 0: only at the end
    episodes: int = 32  # per evaluation
    num_envs: int = 32  # episodes played side by side
    num_simulations: int = 0  # 0: as in training
    seed: int = 1_000_000  # episode i uses eval.seed + i
    epsilon: float = 0.0  # share of uniformly random actions; this changes the protocol
    max_episode_steps: int = 0  # agent steps, during training; 0: env.eval_max_episode_steps


@dataclass(frozen=True)
class CheckpointConfig:
    """Saving the whole run."""

    every: int = 10_000  # agent steps; 0: only at the end, when interrupted and by minutes
    minutes: float = 5.0  # also save after this time; 0: never
    keep: int = 2  # newest checkpoints to keep; if one is damaged, the one before is used
    keep_best: bool = True  # also keep the weights of the best evaluation


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    every: int = 1_000  # agent steps
    tensorboard: bool = True  # also write TensorBoard events
    wandb: bool = False  # also send to Weights & Biases: pip install "ez_jax[wandb]"
    progress: bool = True  # a live bar on a terminal; false: plain lines
    watchdog: float = 1_800.0  # seconds without a sign of life, then the process ends; 0: never


@dataclass(frozen=True)
class Config:
    """Game, length, pace and ideas of a run."""

    game: str = "CartPole"  # a name or id, in any case; package:Name for your own
    preset: str = "efficientzero"  # if not given: efficientzero on Atari, small elsewhere
    seed: int = 0  # of all random numbers of the run
    name: str = "default"  # the run is the folder runs/<game>/<name>/seed<seed>
    run_dir: str = ""  # another folder for the run; empty: see name
    total_agent_steps: int = 100_000  # decisions in the whole run, over all environments
    updates_per_step: float = 1.0  # updates per agent step after learner.start
    final_updates: int = 20_000  # updates after the last agent step
    discount: float = 0.997**4  # per agent step: 0.997 per frame of Atari
    precision: str = "auto"  # float32 | bfloat16 | auto (bfloat16 on GPUs and TPUs)
    devices: str = "all"  # a number of GPUs or TPU chips | local (of this process) | all
    value_prefix: bool = True  # false: predict the reward of each step instead
    consistency: bool = True  # SimSiam loss between imagined and observed states
    off_policy_correction: bool = True  # shorten td_steps for old data
    prioritised: bool = True  # false: uniform replay
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    reanalyse: ReanalyseConfig = field(default_factory=ReanalyseConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def horizon(self) -> int:
        """Model steps per value prefix; 1 without the value prefix."""
        return self.learner.lstm_horizon_len if self.value_prefix else 1

    @property
    def total_updates(self) -> int:
        """Updates of the whole run (schedules refer to it)."""
        with_data = max(0, self.total_agent_steps - self.learner.start)
        return int(with_data * self.updates_per_step) + self.final_updates
