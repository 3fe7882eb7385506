"""Parameters of nodes: described, checked when declared and when set; the shipped file holds them all."""

import dataclasses

import pytest
import rclpy
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.nodes.parameter_file import schemas, text
from geo4d_ros.resources import resource
from geo4d_ros.ros.serve.environment import free_domain_id
from geo4d_ros.ros.serve.parameters import NodeParameters, parameter, problem


@dataclasses.dataclass(frozen=True)
class Example:
    age: float = parameter(0.5, 'Age [s].', minimum=0.1, maximum=2.0)
    count: int = parameter(3, 'Count.', minimum=1, maximum=5)
    mode: str = parameter('a', 'Mode.', choices=('a', 'b'))
    box: tuple[float, ...] = parameter((0.0, 1.0), 'Box [m].', minimum=-1.0, maximum=1.0, length=2)
    model: str = parameter('x', 'Model.', read_only=True)
    nested: bool = parameter(True, 'Under another name.', name='group.flag')


@pytest.fixture(scope='module')
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain_id())
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def make(context):
    made = []

    def node(**overrides):
        made.append(Node('example', context=context, use_global_arguments=False, start_parameter_services=False,
                         parameter_overrides=[Parameter(k, value=v) for k, v in overrides.items()]))
        return made[-1]

    yield node
    for one in made:
        one.destroy_node()


def test_defaults_and_overrides(make):
    assert NodeParameters(make(), Example).values == Example()
    values = NodeParameters(make(age=1.5, mode='b', box=[-0.5, 0.5], **{'group.flag': False}), Example).values
    assert values == Example(1.5, 3, 'b', (-0.5, 0.5), 'x', False)


@pytest.mark.parametrize('overrides, text', [
    ({'age': 5.0}, 'age'), ({'age': float('nan')}, 'age'), ({'count': 0}, 'count'), ({'count': 'many'}, 'count'),
    ({'mode': 'c'}, "one of a, b but got 'c'"), ({'box': [0.0]}, 'should have 2 values'), ({'box': [0.0, 9.0]}, 'box'),
])
def test_a_bad_override_ends_in_one_line(make, overrides, text):
    with pytest.raises(ConfigurationError, match=text) as error:
        NodeParameters(make(**overrides), Example)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name, value, good', [
    ('age', 1.0, True), ('age', 3.0, False), ('age', float('nan'), False), ('count', 6, False), ('count', 2.5, False),
    ('mode', 'b', True), ('mode', 'z', False), ('box', [0.0, 0.5], True), ('box', [0.0, 0.5, 1.0], False),
    ('model', 'y', False), ('group.flag', False, True),
])
def test_setting_at_run_time_is_checked(make, name, value, good):
    node, changes = make(), []
    parameters = NodeParameters(node, Example, on_change=changes.append)
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert result.successful == good and len(changes) == good
    assert (parameters.values != Example()) == good
    assert good or result.reason


def test_description_carries_range_and_choices(make):
    node = make()
    NodeParameters(node, Example)
    assert node.describe_parameter('age').floating_point_range[0].to_value == 2.0
    assert 'One of: a, b.' in node.describe_parameter('mode').description


def test_the_shipped_file_is_what_the_classes_say():
    path = resource('config', 'geo4d.yaml')
    assert path.read_text() == text(), 'run: python -m geo4d_ros.nodes.parameter_file > config/geo4d.yaml'


@pytest.mark.parametrize('name', ['video_generator', 'gripper_tracker', 'plan_executor', 'simulated_cell'])
def test_every_shipped_value_is_valid_and_described(name):
    values = yaml.safe_load(text())[f'/**/{name}']['ros__parameters']
    fields = {f.metadata['name'] or f.name: f for f in dataclasses.fields(schemas()[name])}
    assert set(values) == set(fields)
    for key, field in fields.items():
        assert problem(field, values[key]) is None
        assert type(values[key]) is type(list(field.default) if isinstance(field.default, tuple) else field.default)
        assert field.metadata['description'].rstrip('. ')


def test_nothing_changes_while_a_run_is_under_way(make):
    running = ['a run is under way']
    node = make()
    node.declare_parameter('foreign', 1)
    parameters = NodeParameters(node, Example, locked=lambda: running[0])
    result = node.set_parameters([Parameter('age', value=1.0)])[0]
    assert not result.successful and 'age: not while a run is under way' in result.reason
    assert parameters.values == Example()
    assert node.set_parameters([Parameter('foreign', value=2)])[0].successful, 'not ours to lock'
    running[0] = ''
    assert node.set_parameters([Parameter('age', value=1.0)])[0].successful and parameters.values.age == 1.0
