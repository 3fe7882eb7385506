"""The executor's core with stand-ins for the cell: full cycles, refusals, faults, and any order of events."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d_ros.loop.events import EventKind
from geo4d_ros.loop.machine import LoopConfig, Phase
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.panda import HOME, urdf_text
from geo4d_ros.ros.execute import execution as module
from geo4d_ros.ros.execute.execution import Execution
from geo4d_ros.ros.execute.predictor_client import Reply
from geo4d_ros.types import Plan

NOW = 50_000_000_000
LIMITS = replace(MotionLimits(), dwell=0.0)
MODEL = RobotModel.from_urdf(urdf_text())


class StubArm:
    """Remembers what it was told; `finish` ends the motion it was given."""

    actions, ready = ('arm',), True

    def __init__(self):
        self.calls, self.done = [], None

    def move(self, segment, done):
        self.calls.append('move')
        self.done = done

    grip = move

    def stop(self):
        self.calls.append('stop')
        self.done = None

    def hold(self, q):
        self.calls.append('hold')

    def poll(self):
        return None

    def finish(self, refusal=None):
        if self.done is not None:
            done, self.done = self.done, None
            done(refusal)


class World:
    """An Execution around stubs; time passes only when told to."""

    def __init__(self, monkeypatch, config):
        self.steady, self.resting, self.refusals = 1000.0, True, None
        monkeypatch.setattr(module.time, 'monotonic', lambda: self.steady)
        self.stamp, self.asked, self.reports, self.q = NOW, [], [], HOME.copy()
        logger = SimpleNamespace(info=lambda text: None, error=lambda text: None, warning=lambda text: None)
        node = SimpleNamespace(
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.stamp)),
            get_logger=lambda: logger, create_subscription=lambda *options: None)
        state = RobotState(HOME.copy(), np.zeros(7), 0.08, 0)
        robot = SimpleNamespace(
            model=MODEL, silence=0.0,
            state=lambda closed: replace(state, q=self.q, stamp=self.stamp, gripper_closed=closed),
            refusal=lambda: None, at_rest=lambda since: self.resting, require_model=lambda: MODEL)
        cameras = SimpleNamespace(check_silence=lambda seconds: self.refusals,
                                  check_pair=lambda after, limits: (None, True))
        predictor = SimpleNamespace(call=self.asked.append, ready=True)
        self.arm, self.gripper = StubArm(), StubArm()
        self.execution = Execution(node, robot, cameras, predictor, self.arm, self.gripper, 'panda_link0', (1.0, 1.0),
                                   self.reports.append)
        self.execution.configure(config, LIMITS, Scene.table(), 5)
        self.plans = {}
        self.execution.inbox = SimpleNamespace(complete=self.plans.__contains__, take=self.plans.pop)

    @property
    def phase(self):
        return self.execution.phase

    def plan(self, reply_plan=None, **changes):
        """Let the generator answer with a 4 cm slide."""
        self.stamp += 1_000_000_000
        stamp = self.stamp - 100_000_000
        T_start = MODEL.forward(HOME)
        T = np.tile(T_start, (4, 1, 1))
        T[:, 1, 3] += 0.01 * np.arange(1, 5)
        values = dict(id=f'p{stamp}', T_base_gripper=T, opening=np.full(4, 0.08), time_from_start=0.5 * np.arange(1, 5),
                      observation_stamp=stamp, T_base_gripper_start=T_start, opening_start=0.08, confidence=np.ones(4))
        plan = Plan(**(values | changes))
        self.plans[stamp] = plan
        if self.asked:
            self.asked.pop()(Reply(reply_plan or plan.id, stamp))

    def handle(self, kind, **data):
        return self.execution.handle(kind, **data)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch, LoopConfig(dry_run=False, auto=True, recover=True))


def test_a_cycle(world):
    world.handle(EventKind.STEP)
    assert world.phase is Phase.PREDICTING
    world.plan()
    assert world.phase is Phase.EXECUTING
    assert world.arm.calls == ['move']
    world.arm.finish()
    world.execution.tick()
    assert world.phase is Phase.DONE
    assert world.execution.loop.state.reason is Reason.STEP_DONE


def test_a_dry_run_moves_nothing(monkeypatch):
    world = World(monkeypatch, LoopConfig())
    world.handle(EventKind.STEP)
    world.plan()
    assert world.phase is Phase.DONE
    assert world.execution.loop.state.reason is Reason.DRY_RUN
    assert world.arm.calls == []


def test_without_auto_a_plan_waits_for_its_approval(monkeypatch):
    world = World(monkeypatch, LoopConfig(dry_run=False))
    world.handle(EventKind.STEP)
    world.plan()
    assert world.phase is Phase.AWAITING_APPROVAL
    world.handle(EventKind.APPROVE, plan_id='another')
    assert world.arm.calls == []
    world.handle(EventKind.APPROVE, plan_id=world.execution.loop.state.plan_id)
    assert world.arm.calls == ['move']


def test_a_stop_cancels_at_once_and_ends_when_the_arm_rests(world):
    world.handle(EventKind.START)
    world.plan()
    world.resting = False
    world.handle(EventKind.STOP)
    assert world.arm.calls == ['move', 'stop']
    assert world.gripper.calls == ['stop']
    world.execution.tick()
    assert world.phase is Phase.STOPPING
    world.resting = True
    world.execution.tick()
    assert world.phase is Phase.IDLE


def test_an_arm_that_moves_on_is_told_to_stand_and_then_reported(world):
    world.handle(EventKind.START)
    world.plan()
    world.resting = False
    world.handle(EventKind.STOP)
    world.steady += 2.1
    world.execution.tick()
    assert world.arm.calls[-2:] == ['stop', 'hold']
    world.steady += 2.1
    world.execution.tick()
    assert world.phase is Phase.FAULT
    assert world.execution.loop.state.reason is Reason.STOP_NOT_CONFIRMED


def test_an_arm_that_nobody_measures_is_not_sent_back_to_where_it_was(world):
    world.handle(EventKind.START)
    world.plan()
    world.resting, world.execution.robot.silence = False, 5.0
    world.handle(EventKind.STOP)
    world.steady += 2.1
    world.execution.tick()
    assert 'hold' not in world.arm.calls
    assert world.arm.calls[-1] == 'stop'


@pytest.mark.parametrize('reason', [Reason.GOAL_REJECTED, Reason.EXECUTION_ABORTED,
                                    Reason.BACKEND_UNAVAILABLE])
def test_a_failing_backend_latches_a_fault(world, reason):
    world.handle(EventKind.START)
    world.plan()
    world.arm.finish(Refusal(reason, 'told so'))
    world.execution.tick()
    assert world.phase is Phase.FAULT
    assert world.execution.loop.state.reason is reason
    assert 'stop' in world.arm.calls


def test_an_arm_that_is_held_up_stops_goes_back_the_way_it_came_and_looks_again(world):
    world.handle(EventKind.START)
    world.plan()
    world.q = world.execution._motion.segments[0].q[-1]
    world.arm.finish(Refusal(Reason.TRACKING_ERROR, 'joint 6'))
    assert world.arm.calls == ['move', 'stop'] and world.phase is Phase.STOPPING
    world.execution.tick()
    assert world.arm.calls == ['move', 'stop', 'move'] and world.phase is Phase.EXECUTING
    assert world.execution._plan.id.endswith('-back')
    world.arm.finish(None)
    world.execution.tick()
    assert world.phase in (Phase.OBSERVING, Phase.PREDICTING)


def test_a_watchdog_stops_the_arm(world):
    world.handle(EventKind.START)
    world.plan()
    world.refusals = Refusal(Reason.CAMERA_SILENT, 'one')
    world.execution.tick()
    assert world.arm.calls == ['move', 'stop']
    world.execution.tick()
    assert world.phase is Phase.FAULT
    assert world.execution.loop.state.reason is Reason.CAMERA_SILENT


def test_images_from_before_the_rest_are_refused(world):
    world.handle(EventKind.STEP)
    world.asked.pop()(Reply('p', NOW))
    assert world.execution.loop.state.reason is Reason.OBSERVATION_STALE


def test_a_plan_of_another_prediction_is_refused(world):
    world.handle(EventKind.STEP)
    world.plan(reply_plan='another')
    assert world.execution.loop.state.reason is Reason.PLAN_INVALID
    assert world.arm.calls == []


def test_a_late_answer_is_not_taken(world):
    world.handle(EventKind.START)
    answer = world.asked.pop()
    world.handle(EventKind.STOP)
    world.execution.tick()
    answer(Reply('p', NOW + 1))
    assert world.phase is Phase.IDLE
    assert 'move' not in world.arm.calls


def test_an_error_in_our_own_code_stops_the_arm(world, monkeypatch):
    def broken(*options):
        raise RuntimeError('a bug')

    monkeypatch.setattr(module, 'plan_trajectory', broken)
    world.handle(EventKind.START)
    world.plan()
    world.execution.tick()
    assert world.phase is Phase.FAULT
    assert world.execution.loop.state.reason is Reason.INTERNAL_ERROR


EVENTS = ('start', 'step', 'stop', 'reset', 'plan', 'finish', 'fail', 'tick', 'wait', 'moving', 'resting',
          'silent', 'heard')


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_nothing_moves_after_a_stop_whatever_happens(monkeypatch, events):
    """Between a stop and the operator's next start no motion is sent, and nothing ever raises."""
    world = World(monkeypatch, LoopConfig(dry_run=False, auto=True, max_refusals=2))
    for event in events:
        before = world.arm.calls.count('move') + world.gripper.calls.count('move')
        allowed = world.phase not in (Phase.STOPPING, Phase.FAULT, Phase.IDLE, Phase.DONE) or event in ('start', 'step')
        if event in ('start', 'step', 'stop', 'reset'):
            world.handle(EventKind[event.upper()])
        elif event == 'plan':
            world.plan()
        elif event == 'finish':
            world.arm.finish()
        elif event == 'fail':
            world.arm.finish(Refusal(Reason.EXECUTION_ABORTED))
        elif event in ('tick', 'wait'):
            world.steady += 0.02 if event == 'tick' else 3.0
            world.execution.tick()
        elif event in ('moving', 'resting'):
            world.resting = event == 'resting'
        else:
            world.refusals = Refusal(Reason.CAMERA_SILENT) if event == 'silent' else None
        after = world.arm.calls.count('move') + world.gripper.calls.count('move')
        assert after == before or allowed, (events, event, world.phase)
        if event == 'stop' and before != after:
            raise AssertionError(events)


def test_no_run_begins_before_the_prediction_service_is_known(world):
    world.refusals = Refusal(Reason.CAMERA_SILENT)
    world.execution.guardian = SimpleNamespace(alive=True, take_stop=lambda: False)
    assert world.execution.not_ready([]).reason is Reason.CAMERA_SILENT  # the last of the checks
    world.execution.predictor.ready = False
    refusal = world.execution.not_ready([])
    assert refusal.reason is Reason.PEER_DEAD and '/geo4d/predict' in refusal.detail
