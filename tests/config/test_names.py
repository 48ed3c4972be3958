"""Games and runs under names that are nearly right."""

import pytest

from ez_jax.config import BadInput, run_folder
from ez_jax.config.families import name_and_family
from ez_jax.terminal import arguments


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("game=failing_games.py:Sound-v0", "write the module, game=failing_games:Sound-v0"),
        ("game=./failing_games.py:Sound-v0", "write the module, game=failing_games:Sound-v0"),
        ("game=:Sound-v0", "names no module"),
        ("game=BreakoutDeterministic-v4", "did you mean Breakout?"),
        ("game=Pong-ramDeterministic-v4", "did you mean Pong?"),
        ("name=..", "set a folder elsewhere with run_dir="),
        ("name=a/../b", "set a folder elsewhere with run_dir="),
        ("name=/a", "set a folder elsewhere with run_dir="),
        ("~learner.batch_size", "would remove a key"),
    ],
)
def test_what_is_nearly_right_is_refused_with_what_was_meant(word, message):
    settings, hydras = arguments.split([word])
    assert not hydras
    with pytest.raises(BadInput, match=r".") as raised:
        arguments.compose(settings)
    assert message in str(raised.value)


def test_a_game_has_one_folder_however_it_is_spelt():
    assert name_and_family("failing_games:sound-V0")[0] == "failing_games:Sound-v0"
    folders = {
        run_folder(arguments.compose([f"game=failing_games:{name}"]))
        for name in ("Sound-v0", "sound-v0", "SOUND-V0")
    }
    assert len(folders) == 1
