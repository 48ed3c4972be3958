"""DeepMind Control as in the papers, through envpool (as of 1.2.5).

- An agent step is `env.frame_skip` frames with the same action, and its reward is the sum of
  theirs: 500 agent steps of two frames in an episode of 1,000. envpool's own `frame_skip` returns
  the reward of the last frame alone, and counts its limit in agent steps.
- The time limit truncates.
- envpool gives all tasks of a body the same parts of an observation, with zeros for those that
  belong to another task. These are left out.
- Images are from the camera of the published ones, which follows the body; the one that MuJoCo
  takes by itself stays where it is.
"""

from gymnasium import spaces

# Parts of an observation that are zeros, by the beginning of the task's id; the first one counts.
_OF_OTHER_TASKS = {
    "DogFetch": (),
    "Dog": ("ball_state", "target_position"),
    "FingerSpin": ("target_position", "dist_to_target"),
    "FishUpright": ("target",),
    "HumanoidCMU": (),
    "HumanoidRunPureState": (
        *("joint_angles", "head_height", "extremities", "torso_vertical", "com_velocity"),
    ),
    "Humanoid": ("position",),
    "QuadrupedEscape": ("ball_state", "target_position"),
    "QuadrupedFetch": ("rangefinder",),
    "Quadruped": ("rangefinder", "ball_state", "target_position"),
}

CAMERA, CAMERA_OF_QUADRUPED = 0, 2  # whose first one looks from afar


def camera(task_id: str) -> int:
    """The number of the camera that follows the body."""
    return CAMERA_OF_QUADRUPED if task_id.startswith("Quadruped") else CAMERA


def own_parts(space: spaces.Dict, task_id: str) -> spaces.Dict:
    """The parts of an observation that the task has, in the order of the suite."""
    found = (parts for name, parts in _OF_OTHER_TASKS.items() if task_id.startswith(name))
    others = next(found, ())
    kept = [(name, part) for name, part in space.spaces.items() if name not in others]
    return spaces.Dict(kept)  # pairs keep their order
