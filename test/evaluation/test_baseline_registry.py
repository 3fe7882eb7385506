"""The baseline registry: its configs can be trained, and trained checkpoints are found by name."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from geo4d_ros.evaluation.baselines.registry import BASELINES, found_checkpoints
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.unet.presets import build
from geo4d_ros.tracking.protocol import READOUTS
from geo4d_ros.training.inverse_dynamics import InverseDynamicsTraining
from geo4d_ros.training.two_view.train import parse_config as parse_two_view
from geo4d_ros.training.unet.config import parse_config as parse_unet

CONFIGS = Path(__file__).parents[2] / 'config' / 'train' / 'baselines'


def test_found_in_registry_order_and_strangers_are_left_out(tmp_path):
    for name in ('unet', 'ours', 'stranger'):
        (tmp_path / name / 'model').mkdir(parents=True)
    (tmp_path / 'direct_policy').mkdir()
    assert list(found_checkpoints(tmp_path)) == ['ours', 'unet']


def test_readouts_are_known():
    assert all(set(b.readouts) <= set(READOUTS) for b in BASELINES.values())


def test_every_config_belongs_to_a_baseline():
    assert {p.name for p in CONFIGS.iterdir()} == {b.config for b in BASELINES.values() if b.config}


@pytest.mark.parametrize('name', [name for name, b in BASELINES.items() if b.config])
def test_all_share_one_budget_and_data(name):
    values = yaml.safe_load((CONFIGS / BASELINES[name].config).read_text())
    assert values['minutes'] == 40 and 'data' not in values
    assert values['clock'] == 'processor' and values['batch'] == 4 and values['warmup'] == 50
    if values['model'] == 'unet':
        build(parse_unet(values).preset, values['unet'])
    elif values['model'] == 'two_view':
        TwoViewNetwork(**parse_two_view(values).network)
    else:
        InverseDynamicsTraining(**{k: v for k, v in values.items() if k != 'model'})


def test_make_trains_the_generator_before_the_inverse_dynamics_that_reads_its_video():
    env = {k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MFLAGS'))}
    out = subprocess.run(['make', '-n', 'baselines'], cwd=CONFIGS.parents[2], env=env, capture_output=True, text=True,
                         check=True).stdout
    names = re.search(r'for name in (.*);', out).group(1).split()
    assert names[0] == 'ours' and set(names) == {p.stem for p in CONFIGS.glob('*.yaml')}
