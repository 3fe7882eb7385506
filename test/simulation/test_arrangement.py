"""Scenes of several tasks: the instruction alone decides, nothing stands in the way, and some leave nothing to do."""

import numpy as np
import pytest

from geo4d_ros.errors import Geo4dError, InvalidInputError
from geo4d_ros.simulation import scene
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.expert import Scene, next_segment
from geo4d_ros.simulation.rollout import rollout
from geo4d_ros.simulation.tasks import TASKS
from geo4d_ros.simulation.tasks.arrangement import (
    ALONE,
    Arrangement,
    draw_arrangement,
    draw_layouts,
    instruction_of,
)


@pytest.fixture(scope='module')
def pair():
    """One scene with apple and cereal, either of them instructed."""
    return (Cell('apple', 1, arrangement=Arrangement(('cereal',))),
            Cell('cereal', 1, arrangement=Arrangement(('apple',))))


def test_the_scene_does_not_tell_which_task_is_meant(pair):
    apple, cereal = pair
    for name in ('apple', 'cereal'):
        np.testing.assert_allclose(apple.object_pose(name), cereal.object_pose(name), atol=1e-6)
    np.testing.assert_allclose(apple.joint_positions, cereal.joint_positions, atol=1e-9)
    assert sorted(map(tuple, apple.model.geom_rgba)) == sorted(map(tuple, cereal.model.geom_rgba))


def test_only_the_instructed_object_has_the_object_label(pair):
    for cell, other in zip(pair, ('cereal', 'apple'), strict=True):
        geoms = np.flatnonzero(cell.geom_labels == scene.LABELS['object'])
        of_object = {cell.model.body(b).name for b in cell.model.geom_bodyid[geoms]}
        assert of_object == {'object'}
        body = cell.model.body(f'other_{other}_object').id
        assert set(cell.geom_labels[cell.model.geom_bodyid == body]) == {scene.other_labels(other)[0]}
        assert set(scene.other_labels(other)) <= set(cell.geom_labels)


def test_the_expert_does_the_instructed_task_and_leaves_the_other_object_alone(pair):
    for cell, other in zip(pair, ('cereal', 'apple'), strict=True):
        assert rollout(cell).success
        moved = cell.moved_objects()
        assert moved[cell.task] > 0.1 and moved[other] < 0.01


@pytest.mark.parametrize('task', sorted(TASKS))
def test_an_absent_object_leaves_nothing_to_do(task):
    cell = Cell(task, 2, arrangement=Arrangement(target='absent'))
    assert next_segment(cell.spec, Scene.of(cell)) is None
    assert not cell.succeeded() and np.linalg.norm(cell.object_pose()[:3, 3]) > 10


@pytest.mark.parametrize('task', sorted(TASKS))
def test_a_done_task_is_left_as_it_is(task):
    cell = Cell(task, 2, arrangement=Arrangement(target='done'))
    assert cell.succeeded()
    rollout(cell, max_seconds=5.0)
    assert cell.succeeded() and cell.moved_objects()[task] < 0.01


def test_bystanders_come_without_their_goal():
    cell = Cell('apple', 3, arrangement=Arrangement(('cereal',), ('spatula',)))
    names = {cell.model.body(b).name for b in range(cell.model.nbody)}
    others = {name.removeprefix('other_') for name in names if name.startswith('other_')}
    assert others == {'cereal_object', 'cereal_fixture_shelf', 'spatula_object', 'spatula_fixture_crock'}


def test_places_on_the_table_do_not_overlap():
    for seed in range(5):
        specs = draw_layouts(np.random.default_rng(seed), ['apple', 'spatula'], (), lambda _: True)
        for x, y, r in specs['apple'].footprint():
            assert all(np.hypot(x - u, y - v) > r + s for u, v, s in specs['spatula'].footprint())


def test_kinds_of_scenes():
    seeds = range(60)
    assert all(draw_arrangement('single', 'apple', s) == ALONE for s in seeds)
    mixed = [draw_arrangement('mixed', 'apple', s) for s in seeds]
    assert {a.others for a in mixed} == {('cereal',), ('spatula',)} and {a.target for a in mixed} == {'present'}
    assert 0.1 < np.mean([len(a.bystanders) for a in mixed]) < 0.5
    for seed in seeds:  # partners at a seed have the same things on the table
        partner, = draw_arrangement('mixed', 'apple', seed).others
        back = draw_arrangement('mixed', partner, seed)
        assert back.others == ('apple',) and back.bystanders == draw_arrangement('mixed', 'apple', seed).bystanders
    assert {draw_arrangement('idle', 'apple', s).target for s in seeds} == {'absent', 'done'}
    kinds = [draw_arrangement('varied', 'apple', s) for s in range(200)]
    assert 0.1 < np.mean([a.target != 'present' for a in kinds]) < 0.3
    assert 0.3 < np.mean([bool(a.others) for a in kinds]) < 0.7


def test_no_held_out_instruction_is_ever_trained_on():
    rng = np.random.default_rng(0)
    for name, kind in TASKS.items():
        trained = {instruction_of(name, 'train', rng) for _ in range(100)}
        assert trained == set(kind.instructions)
        assert not trained & {instruction_of(name, 'held-out', rng) for _ in range(30)}


@pytest.mark.parametrize('bad', [{'others': ('banana',)}, {'target': 'gone'}, {'others': ('apple',),
                                                                              'bystanders': ('apple',)}])
def test_bad_arrangements_are_refused(bad):
    with pytest.raises(Geo4dError):
        Arrangement(**bad)


def test_a_task_is_not_its_own_neighbour():
    with pytest.raises(InvalidInputError, match='itself'):
        Cell('apple', 0, arrangement=Arrangement(('apple',)))
