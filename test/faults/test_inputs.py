"""One bad input each, played to node processes over DDS; what the graph says of it and does is judged.

A case is right when the process lives and answers, no motion is commanded, what is wrong is named after it came, and a
good plan or look is accepted afterwards. The few that are not marked slow stand for their kinds in `make test`.

| handed case | here |
|---|---|
| H1_position_empty | test_joint_states[positions missing] |
| H2_executor_plan_info_* | test_plans[no plan at all], [infinite seconds] |
| H2_generator_plan_info_*, H2_tracker_prediction_info_* | test_generator_and_tracker_apart |
| H3_distortion | test_a_distorted_picture_is_rectified |
| H4_depth_not_aligned | test_looks[depth not aligned] |
| H5_two_sources_of_joint_states | test_two_sources_of_joint_states |
| H6_velocity_missing, H6_velocity_nan | test_velocities_that_are_missing, test_joint_states[velocity NaN] |
| H7_tf_after_* | test_transforms_of_before_a_jump_of_the_clock |
| H8_plan_of_another_node_* | test_a_plan_of_another_node, test_a_stranger_s_plan_is_not_approved |
"""

import contextlib
import copy
import os
import time

import numpy as np
import pytest
from fakes.cameras import FakeCameras
from fakes.graph import FAKES, new_group
from fakes.graph_operator import PATIENCE, Operator, wait_for
from fakes.messages import example_info
from fakes.played_robot import NAMES, PlayedRobot
from geo4d_interfaces.msg import Plan, PredictionInfo
from geo4d_interfaces.srv import Predict
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from geo4d_ros.ros.serve.qos import IMAGE_QOS, PREDICTION_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import to_stamp

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
GARBAGE = b'\x00\x01\x00\x00' + b'\xff' * 64  # no message of any kind that holds a text or a list
RESTING = ('IDLE', 'DONE', 'FAULT')
EXECUTOR = {'dry_run': False, 'auto': True, 'joint_state_silence': 1.0, 'camera_silence': 10.0, 'pair_age': 5.0,
            'joint_state_age': 1.0, 'future_tolerance': 0.2, 'plan_seconds': 3.0, 'predict_seconds': 8.0,
            'feedback_silence': 10.0, 'answer_seconds': 10.0, 'peer_silence': 20.0}
HOUR = 3600 * 10**9


def slow(name, *values):
    return pytest.param(*values, id=name, marks=pytest.mark.slow)


def quick(name, *values):
    return pytest.param(*values, id=name)


@contextlib.contextmanager
def graph(folder):
    """(processes, operator) in a domain of their own; their environment is set."""
    before = dict(os.environ)
    group, domain_id = new_group(folder)
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    group.environment['PYTHONPATH'] = os.pathsep.join([str(FAKES.parent), os.environ.get('PYTHONPATH', '')])
    operator = Operator(domain_id)
    try:
        with group:
            yield group, operator
    finally:
        operator.close()
        os.environ.clear()
        os.environ.update(before)


# --- the executor ---

class Executor:
    """The executor's process in its played world."""

    def __init__(self, group, operator):
        self.group, self.operator, self.world = group, operator, PlayedRobot(operator)
        operator.begin()
        group.start_node('plan_executor', EXECUTOR)
        assert wait_for(lambda: operator.state, PATIENCE), group.last_line('plan_executor')
        assert self.accepts_a_good_plan(PATIENCE), operator.heard(0)

    def rest(self):
        """Back to where a step may begin."""
        for _ in range(5):
            if self.operator.state not in RESTING:
                self.operator.call('/geo4d/stop')
                wait_for(lambda: self.operator.state in RESTING, 5.0)
            if self.operator.state == 'FAULT':
                self.operator.call('/geo4d/reset')
                wait_for(lambda: self.operator.state != 'FAULT', 3.0)
            if self.operator.state in RESTING[:2]:
                return

    def step(self, seconds=8.0):
        """Whether a step sends a goal; waits for the step's end."""
        goals, states = len(self.world.goals), len(self.operator.states)
        accepted, _ = self.operator.call('/geo4d/step')

        def over():
            heard = [values['state'] for _, values in self.operator.states[states:]]
            return len(self.world.goals) > goals or (any(s not in RESTING for s in heard) and heard[-1] in RESTING)

        if accepted:
            wait_for(over, seconds)
        time.sleep(0.2)
        return len(self.world.goals) > goals

    def accepts_a_good_plan(self, seconds=20.0):
        """Once the world is good again, within a few tries."""
        self.world.normal()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.rest()
            if self.step():
                self.rest()
                return True
            time.sleep(0.3)
        return False

    def refuses(self, *patterns, warm=0.6):
        """The world is bent: no goal, the cause is named, the process lives, and a good plan is accepted later."""
        since = time.monotonic()
        time.sleep(warm)
        self.rest()
        assert not self.step(), f'a goal was sent; said: {self.operator.heard(since)}'
        assert wait_for(lambda: self.operator.named(since, *patterns), 3.0), self.operator.heard(since)
        self.group.check()
        assert self.operator.answers('plan_executor')
        assert self.accepts_a_good_plan(), self.operator.heard(since)


@pytest.fixture(scope='module')
def executor(tmp_path_factory):
    with graph(tmp_path_factory.mktemp('executor')) as (group, operator):
        yield Executor(group, operator)


@pytest.fixture(autouse=True)
def normal_again(request):
    yield
    if 'executor' in request.fixturenames:
        request.getfixturevalue('executor').world.normal()


def changed(**values):
    """An edit of a message that sets fields, or calls functions with the field's value."""
    def edit(message):
        for name, value in values.items():
            setattr(message, name, value(getattr(message, name)) if callable(value) else value)
        return message
    return edit


def stamped(offset):
    def edit(message):
        message.header.stamp = to_stamp(max(0, time.time_ns() + offset))
        return message
    return edit


def with_item(field, index, value):
    def edit(message):
        values = list(getattr(message, field))
        values[index] = value
        setattr(message, field, values)
        return message
    return edit


def swaying(message):
    return with_item('position', 0, message.position[0] + 0.1 * np.sin(7 * time.time()))(message)


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('edit, patterns', [
    quick('positions missing', changed(position=[]), ('position', 'missing')),
    slow('positions too many', changed(position=lambda p: [*p, 0.0]), ('position', 'too many')),
    slow('a position NaN', with_item('position', 2, NAN), ('position', 'finite')),
    slow('a position infinite', with_item('position', 7, INF), ('position', 'finite')),
    slow('velocity NaN', changed(velocity=[NAN] * len(NAMES)), ('velocit', 'finite')),
    slow('velocities too few', changed(velocity=[0.0] * 3), ('velocit',)),
    slow('a joint twice', with_item('name', 1, NAMES[0]), ('twice',)),
    slow('a prefix', changed(name=lambda names: [f'left_{n}' for n in names]), ('arm_joints|panda_joint1',)),
    slow('an arm joint missing', changed(name=lambda names: ['other', *names[1:]]), ('lack', 'panda_joint1')),
    slow('the finger missing', changed(name=lambda names: [n.replace('finger', 'thumb') for n in names]),
         ('gripper_joint|finger',)),
    slow('of 1965', lambda m: setattr(m.header.stamp, 'sec', -157_000_000) or m,
         ('stamp|1970',)),
    slow('an hour old', stamped(-HOUR), ('JOINT_STATES_STALE|old|stale',)),
    slow('of the future', stamped(HOUR), ('future|ahead|JOINT_STATES_STALE|CLOCK',)),
    slow('beyond a limit', with_item('position', 3, 1.0), ('limit|JOINT',)),
    slow('moving by positions only', swaying, ('ROBOT_MOVING|not at rest|moves|START',)),
    slow('300 joints', changed(name=[f'j{i}' for i in range(300)]), ('joints are read|names',)),
    slow('no message at all', lambda m: GARBAGE, ('cannot be read',)),
])
def test_joint_states(executor, edit, patterns):
    executor.world.edit_joints = edit
    executor.refuses(*patterns, warm=1.5)  # what was good before is too old by then (joint_state_age)


@pytest.mark.slow
def test_velocities_that_are_missing(executor):
    """Rest is derived from the positions."""
    executor.world.edit_joints = changed(velocity=[])
    time.sleep(0.6)
    executor.rest()
    assert executor.step()
    executor.rest()


def swap_pose(**orientation):
    def edit(message):
        for name, value in orientation.items():
            setattr(message.poses[1].orientation, name, value)
        return message
    return edit


@pytest.mark.parametrize('edit, patterns', [
    quick('no plan at all', lambda m: GARBAGE, ('cannot be read as Plan',)),
    slow('infinite seconds', with_item('seconds', 1, INF), ('seconds', 'finite')),
    slow('a pose NaN', lambda m: setattr(m.poses[2].position, 'z', NAN) or m, ('rigid',)),
    slow('a quaternion of zeros', swap_pose(x=0.0, y=0.0, z=0.0, w=0.0), ('rigid|quaternion',)),
    slow('one pose', changed(poses=lambda p: p[:1], seconds=[0.0], openings=[0.08], confidences=[1.0]), ('poses',)),
    slow('openings too few', changed(openings=lambda v: v[:2]), ('openings',)),
    slow('times that go back', changed(seconds=lambda v: [0.0, *v[:0:-1]]), ('seconds', 'increase')),
    slow('confidence NaN', with_item('confidences', 1, NAN), ('confidences',)),
    slow('an opening of a metre', with_item('openings', 1, 1.0), ('OPENING|opening|GRIPPER',)),
    slow('a foreign frame', lambda m: setattr(m.header, 'frame_id', 'left_arm_base') or m, ('left_arm_base',)),
    slow('an hour old', stamped(-HOUR), ('PLAN_INVALID|STALE|prediction',)),
    slow('of the future', stamped(HOUR), ('PLAN_INVALID|future|ahead|prediction',)),
    slow('nanoseconds of four', lambda m: setattr(m.header.stamp, 'nanosec', 4 * 10**9) or m, ('stamp',)),
    slow('under another id', changed(id='somebody'), ('PLAN_TIMEOUT|TRACKING|TIMEOUT|plan',)),
    slow('an unknown verdict', changed(verdict=77), ('verdict',)),
    slow('an unknown reason', changed(reason='BECAUSE'), ('reason',)),
    slow('5000 poses', changed(poses=lambda p: list(p) * 1000), ('at most|poses',)),
    slow('a jump of half a metre', lambda m: setattr(m.poses[1].position, 'y', 0.5) or m, ('STEP|jump|far|TOO|m,',)),
])
def test_plans(executor, edit, patterns):
    executor.world.edit_plan = edit
    executor.refuses(*patterns, warm=0.0)


@pytest.mark.slow
def test_two_sources_of_joint_states(executor):
    with executor.operator.stranger('other_driver') as node:
        other = node.create_publisher(JointState, '/joint_states', 10)

        def both(message):
            moved = copy.deepcopy(message)
            moved.position[0] += 0.3
            return [(None, message), (other, moved)]

        executor.world.edit_joints = both
        executor.refuses('two publishers', 'joint_states', warm=1.0)


def test_a_plan_of_another_node(executor):
    """A stranger publishes beside the tracker; the run is refused by name."""
    with executor.operator.stranger('intruder') as node:
        seen = node.create_publisher(Plan, '/geo4d/plan', STATE_QOS)
        assert wait_for(seen.get_subscription_count, PATIENCE)
        time.sleep(0.5)
        since = time.monotonic()
        executor.rest()
        assert not executor.step()
        assert executor.operator.named(since, 'SOURCE_CHANGED', 'intruder'), executor.operator.heard(since)
    assert executor.accepts_a_good_plan()


@pytest.mark.slow
def test_a_second_server_of_predict(executor):
    with executor.operator.stranger('second_generator') as node:
        node.create_service(Predict, '/geo4d/predict', lambda request, response: response)
        time.sleep(3.0)  # the executor knows of it once it is discovered
        since = time.monotonic()
        executor.rest()
        assert not executor.step()
        assert executor.operator.named(since, 'SOURCE_CHANGED', 'second_generator'), executor.operator.heard(since)
    assert executor.accepts_a_good_plan(40.0)


@pytest.mark.slow
def test_a_stranger_s_plan_is_not_approved(executor):
    """auto is off; a stranger repeats the plan under the id that waits, and the operator approves that id."""
    operator, world = executor.operator, executor.world
    executor.rest()
    assert operator.set('plan_executor', auto=False)
    try:
        goals = len(world.goals)
        operator.call('/geo4d/step')
        assert wait_for(lambda: operator.state == 'AWAITING_APPROVAL', 10.0), operator.state
        assert operator.approve('')[0] is False
        with operator.stranger('intruder') as node:
            forged, plan = node.create_publisher(Plan, '/geo4d/plan', STATE_QOS), world.plan()
            plan.id = operator.states[-1][1]['plan_id']
            since = time.monotonic()
            forged.publish(plan)
            assert wait_for(lambda: operator.named(since, 'SOURCE_CHANGED'), 10.0), operator.heard(since)
            assert operator.approve(plan.id)[0] is False
        assert len(world.goals) == goals
    finally:
        executor.rest()
        operator.set('plan_executor', auto=True)
    assert executor.accepts_a_good_plan()


# --- generator and tracker ---

class Looking:
    """Generator and tracker in one process, the cameras played."""

    def __init__(self, group, operator):
        self.group, self.operator = group, operator
        self.cameras = operator.add(FakeCameras)
        self.cameras.fault = 'frozen'  # one picture, so that two looks can be compared
        self.pictures = []
        operator.node.create_subscription(Image, '/geo4d/prediction/reference/color/image_raw', self.pictures.append,
                                          PREDICTION_QOS)
        operator.begin()
        group.start_node('prediction', {'max_age': 3.0, 'observation_timeout': 3.0, 'slop': 0.05,
                                        'transform_tolerance': 0.5}, command=[str(FAKES / 'prediction.py')])
        assert self.works(PATIENCE), operator.heard(0)

    def normal(self):
        self.cameras.edit, self.cameras.time, self.cameras.fault = (lambda t, i, m: m), time.time_ns, 'frozen'

    def works(self, seconds=20.0):
        self.normal()
        end = time.monotonic() + seconds
        while not self.operator.predict()[0]:
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
        return True

    def first_picture(self):
        self.pictures.clear()
        assert self.operator.predict()[0]
        assert wait_for(lambda: self.pictures, 5.0)
        stamp = min((m.header.stamp.sec, m.header.stamp.nanosec) for m in self.pictures)
        return next(np.array(m.data, int) for m in self.pictures
                    if (m.header.stamp.sec, m.header.stamp.nanosec) == stamp)


@pytest.fixture(scope='module')
def looking(tmp_path_factory):
    with graph(tmp_path_factory.mktemp('looking')) as (group, operator):
        yield Looking(group, operator)


def camera(**values):
    return lambda topic, index, message: changed(**values)(message) if topic == 'info' else message


def with_roi(topic, index, message):
    if topic == 'info':
        message.roi.width, message.roi.height, message.roi.x_offset = 16, 12, 4
    return message


def foreign_depth(topic, index, message):
    if topic == 'depth':
        message.header.frame_id = 'depth_optical'
    return message


@pytest.mark.slow
@pytest.mark.parametrize('edit, patterns', [
    quick('depth not aligned', foreign_depth, ('align',)),
    quick('a lens unknown', camera(distortion_model='spline', d=[0.1] * 5), ('spline', 'rectif')),
    quick('a distortion NaN', camera(distortion_model='plumb_bob', d=[NAN] * 5), ('distort',)),
    quick('binning', camera(binning_x=2, binning_y=2), ('binning',)),
    quick('a region of interest', with_roi, ('roi|region',)),
    quick('another size', camera(height=48, width=64), ('camera_info is for 64x48',)),
    quick('focal length NaN', camera(k=[NAN] * 9), ('k = ',)),
    quick('an image cut', lambda t, i, m: changed(data=lambda d: d[:-7])(m) if t == 'colour' else m,
          ('OBSERVATION_INVALID',)),
    quick('an unknown encoding', lambda t, i, m: changed(encoding='h264')(m) if t == 'colour' else m, ('h264',)),
    quick('no message at all', lambda t, i, m: GARBAGE if t == 'info' else m, ('cannot be read as CameraInfo',)),
])
def test_looks(looking, edit, patterns):
    looking.cameras.edit = edit
    since = time.monotonic()
    time.sleep(0.5)
    try:
        success, _ = looking.operator.predict()
    finally:
        looking.normal()
    assert success is False
    assert wait_for(lambda: looking.operator.named(since, *patterns), 3.0), looking.operator.heard(since)
    looking.group.check()
    assert looking.works(), looking.operator.heard(since)


@pytest.mark.slow
def test_a_distorted_picture_is_rectified(looking):
    plain = looking.first_picture()
    looking.cameras.edit = camera(distortion_model='plumb_bob', d=[-0.5, 0.1, 0.0, 0.0, 0.0])
    time.sleep(0.5)
    try:
        bent = looking.first_picture()
    finally:
        looking.normal()
    assert np.abs(plain - bent).mean() > 5


@pytest.mark.slow
@pytest.mark.parametrize('to_s', [1002, 10])
def test_transforms_of_before_a_jump_of_the_clock(looking, to_s):
    """Simulated time jumps back, and the robot's transforms do not come back."""
    operator, cameras = looking.operator, looking.cameras
    clock = operator.node.create_publisher(Clock, '/clock', 10)
    timer = operator.node.create_timer(0.02, lambda: clock.publish(Clock(clock=to_stamp(cameras.time()))))

    def go_to(seconds):
        begun = time.monotonic_ns()
        cameras.time = lambda: int(seconds * 10**9) + time.monotonic_ns() - begun

    go_to(1000)
    try:
        assert all(operator.set(name, use_sim_time=True) for name in ('video_generator', 'gripper_tracker'))
        time.sleep(4.0)
        assert wait_for(lambda: operator.predict()[0], 20.0), operator.heard(time.monotonic() - 5)
        cameras.fault = 'no tf'
        since = time.monotonic()
        time.sleep(0.2)
        go_to(to_s)
        time.sleep(0.5)
        assert operator.predict()[0] is False
        assert operator.named(since, 'transform|clock'), operator.heard(since)
    finally:
        operator.node.destroy_timer(timer)
        operator.node.destroy_publisher(clock)
        looking.normal()
        assert all(operator.set(name, use_sim_time=False) for name in ('video_generator', 'gripper_tracker'))
    assert looking.works(), operator.heard(since)


# --- generator and tracker apart ---

@pytest.fixture(scope='module')
def apart(tmp_path_factory):
    with graph(tmp_path_factory.mktemp('apart')) as (group, operator):
        operator.begin()
        for name, role in (('video_generator', 'generator'), ('gripper_tracker', 'tracker')):
            group.start_node(name, {'observation_timeout': 0.2} if role == 'generator' else {},
                             command=[str(FAKES / 'apart.py'), role])
        assert all(operator.answers(name) for name in ('video_generator', 'gripper_tracker'))
        yield group, operator


def infinite_plan():
    plan = Plan(id='x', seconds=[0.0, INF])
    plan.header.stamp.sec, plan.header.stamp.nanosec = 2**31 - 1, 2**32 - 1
    return plan


def info(**values):
    return changed(**values)(example_info())


@pytest.mark.slow
@pytest.mark.parametrize('process, topic, kind, message, pattern', [
    quick('generator no plan', 'video_generator', '/geo4d/plan', Plan, GARBAGE, 'cannot be read as Plan'),
    quick('generator infinite plan', 'video_generator', '/geo4d/plan', Plan, infinite_plan(), 'header.stamp'),
    quick('tracker no info', 'gripper_tracker', '/geo4d/prediction/info', PredictionInfo, GARBAGE, 'cannot be read'),
    quick('tracker infinite K', 'gripper_tracker', '/geo4d/prediction/info', PredictionInfo, info(k=[INF] * 18),
          'k = .*finite'),
    quick('tracker stamps back', 'gripper_tracker', '/geo4d/prediction/info', PredictionInfo,
          info(stamps=lambda s: s[::-1]), 'stamps'),
    quick('tracker no views', 'gripper_tracker', '/geo4d/prediction/info', PredictionInfo, info(views=[], k=[]),
          'views'),
    quick('tracker no picture', 'gripper_tracker', '/geo4d/prediction/reference/depth/image_rect_raw', Image, GARBAGE,
          'cannot be read as Image'),
    quick('generator no camera', 'video_generator', '/camera1/camera1/color/camera_info', CameraInfo, GARBAGE,
          'cannot be read as CameraInfo'),
])
def test_generator_and_tracker_apart(apart, process, topic, kind, message, pattern):
    group, operator = apart
    with operator.stranger('speaker') as node:
        publisher = node.create_publisher(kind, topic, IMAGE_QOS if 'camera' in topic else STATE_QOS)
        assert wait_for(publisher.get_subscription_count, 10.0)
        time.sleep(0.3)
        since = time.monotonic()
        for _ in range(2):
            publisher.publish(message)
            time.sleep(0.3)
        assert wait_for(lambda: operator.named(since, pattern), 5.0), operator.heard(since)
    group.check()
    assert operator.answers(process)
    if process == 'video_generator':
        assert operator.predict()[0] is not None
