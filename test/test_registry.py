"""Packages add robots, tasks, generators, trackers and readers by entry points; an unknown name lists what exists."""

from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.data.readers.registry import READERS, find_reader
from geo4d_ros.data.recordings import ImportOptions
from geo4d_ros.errors import CheckpointError, ConfigurationError, Geo4dError, SimulationError
from geo4d_ros.generation.loading import GENERATORS, load_generator
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.registry import Registry, references
from geo4d_ros.robots.registry import ROBOTS, load_robot
from geo4d_ros.simulation.tasks import TASKS, task_class
from geo4d_ros.tracking.backends.registry import TRACKERS
from geo4d_ros.tracking.factory import create_tracker

# One module of a package that somebody else wrote: one thing for each of the five groups.
MODULE = '''
import numpy as np

from geo4d_ros.resources import resource
from geo4d_ros.simulation.tasks.apple import AppleTask
from geo4d_ros.types import GripperTrack, TrackStatus

ROBOT = resource('config', 'robots', 'panda.yaml')


class PearTask(AppleTask):
    name = 'pear'


class StandingStill:
    """Predicts that nothing moves; it has no weights."""

    name, frames, dt = 'standing-still', 3, 0.5

    @classmethod
    def from_pretrained(cls, path):
        return cls()

    def to(self, device):
        return self

    def predict(self, observation, seed=0):
        raise NotImplementedError


class Holding:
    name = 'holding'

    def __init__(self, gripper, masks, readout, config, mood='calm'):
        self.readout, self.mood = readout, mood

    def track(self, video, observation):
        n = len(video.stamps)
        return GripperTrack(np.tile(observation.T_ref_gripper, (n, 1, 1)), np.zeros(n), np.ones(n),
                            (TrackStatus.OK,) * n)

    def close(self):
        pass


class TapeReader:
    name = 'tape'

    def accepts(self, source):
        return source.suffix == '.tape'

    def read(self, source, options):
        yield from ()
'''
ENTRY_POINTS = '''
[geo4d_ros.robots]
other_arm = other_package:ROBOT
[geo4d_ros.tasks]
pear = other_package:PearTask
[geo4d_ros.generators]
StandingStill = other_package:StandingStill
[geo4d_ros.trackers]
holding = other_package:Holding
[geo4d_ros.readers]
tape = other_package:TapeReader
broken = other_package.that_is_not_there:Reader
'''


def install(folder: Path, name: str, entry_points: str) -> None:
    """What pip leaves of a package: its module beside its dist-info."""
    info = folder / f'{name}-1.0.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(entry_points)


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    site = tmp_path / 'site'
    install(site, 'other_package', ENTRY_POINTS)
    (site / 'other_package.py').write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(__import__('sys').modules, 'other_package', raising=False)
    for registry in (ROBOTS, TASKS, GENERATORS, TRACKERS, READERS):
        monkeypatch.setattr(registry, '_added', {})
    return site


def test_a_robot_of_another_package(other_package):
    assert load_robot('other_arm').joints == load_robot('panda').joints


def test_a_task_of_another_package(other_package):
    assert task_class('pear').name == 'pear'


def test_a_generator_of_another_package_opens_its_checkpoints(other_package, tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model/config.json').write_text('{"_class_name": "StandingStill"}')
    write_manifest(tmp_path / 'model')
    assert load_generator(tmp_path / 'model').name == 'standing-still'


def test_a_tracker_of_another_package_with_its_options(other_package):
    tracker = create_tracker('holding', readout='video', masks='colour', mood='keen')
    assert (tracker.name, tracker.readout, tracker.mood) == ('holding', 'video', 'keen')


def test_a_reader_of_another_package_goes_first(other_package, tmp_path, caplog):
    (tmp_path / 'own.tape').mkdir()
    reader = find_reader(tmp_path / 'own.tape')
    assert reader.name == 'tape' and list(reader.read(tmp_path / 'own.tape', ImportOptions())) == []
    assert "reader 'broken'" in caplog.text  # told, and the others go on


def test_a_broken_package_hurts_only_who_names_it(other_package, tmp_path):
    assert find_reader(tmp_path, 'folder').name == 'folder'
    with pytest.raises(ConfigurationError, match=r"reader 'broken' of other_package\.that_is_not_there:Reader cannot "
                                                 r'be loaded .*mend or uninstall'):
        find_reader(tmp_path, 'broken')


@pytest.mark.parametrize(('registry', 'error'), [(ROBOTS, ConfigurationError), (TASKS, SimulationError),
                                                 (GENERATORS, CheckpointError), (TRACKERS, ConfigurationError),
                                                 (READERS, ConfigurationError)])
def test_an_unknown_name_lists_what_exists(other_package, registry, error):
    with pytest.raises(error) as told:
        registry.get('nonsense')
    names = str(told.value).partition('pick one of ')[2].split(', ')
    assert set(registry.others()) < set(names) and set(names) == set(registry) and len(registry.others()) >= 1


def test_two_packages_that_claim_one_name_are_told_apart(other_package, tmp_path, monkeypatch):
    install(tmp_path / 'second', 'second_package', '[geo4d_ros.tasks]\npear = second_package:PearTask\n')
    monkeypatch.syspath_prepend(tmp_path / 'second')
    with pytest.raises(SimulationError, match='other_package:PearTask and second_package:PearTask; uninstall one'):
        TASKS.get('pear')


def test_built_in_names_stay(other_package):
    with pytest.raises(Geo4dError, match='built in and cannot be replaced'):
        TRACKERS.add('model', object)
    late = Registry('no.group', 'thing', lambda: references('no.group', {'pi': 'math:pi'}))
    assert late.get('pi') == np.pi and list(late) == ['pi']
