"""The action clients against real servers over DDS in this process: every wait ends, late goals do not run."""

import os
import time

import numpy as np
import pytest
import rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason
from geo4d_ros.robots.finger_motion import linear
from geo4d_ros.ros.execute.actions import GripperClient, Patience, TrajectoryClient, joint_error
from geo4d_ros.ros.serve.environment import loopback_environment
from geo4d_ros.ros.wire.guard import Malformed

PATIENCE = Patience(answer=20.0, feedback=20.0)
HASTE = Patience(answer=0.2, feedback=0.2)
SEGMENT = MoveSegment(np.array([0.0, 0.5, 1.0]), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)))
CLOSE, OPEN = GripperSegment(0.0, True, 0.5), GripperSegment(0.08, False, 0.5)


class Graph:
    """A client's and a server's node on one executor."""

    def __init__(self, context):
        self.client = rclpy.create_node('client', context=context)
        self.server = rclpy.create_node('server', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.client)
        self.executor.add_node(self.server)
        self.servers, self.outcomes, self.executed, self.cancels = [], [], [], 0
        self.accept, self.ended = True, None

    def serve(self, kind, name, finish):
        """finish(handle) -> result; the goal runs until `ended` is set (at once when it is None)."""
        async def execute(handle):
            self.executed.append(handle)
            if self.ended is not None:
                await self.ended
            return finish(handle)

        def cancelled(handle):
            self.cancels += 1
            return CancelResponse.ACCEPT

        self.servers.append(ActionServer(
            self.server, kind, name, execute, cancel_callback=cancelled,
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.accept else GoalResponse.REJECT))

    def spin(self, condition, seconds=20.0, poll=lambda: None):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, 'nothing happened'
            self.executor.spin_once(timeout_sec=0.02)
            poll()

    def done(self, refusal):
        self.outcomes.append(refusal)


@pytest.fixture
def graph(monkeypatch):
    for key, value in loopback_environment().items():
        monkeypatch.setenv(key, value)
    context = Context()
    rclpy.init(context=context, domain_id=int(os.environ['ROS_DOMAIN_ID']))
    made = Graph(context)
    yield made
    made.executor.shutdown()
    for server in made.servers:
        server.destroy()
    made.client.destroy_node()
    made.server.destroy_node()
    rclpy.try_shutdown(context=context)


def arm(graph, finish=None, patience=PATIENCE, served=True):
    def succeed(handle):
        handle.succeed()
        return FollowJointTrajectory.Result()

    if served:
        graph.serve(FollowJointTrajectory, '/arm', finish or succeed)
    client = TrajectoryClient(graph.client, '/arm', ('a', 'b'), 0.05, patience)
    if served:
        graph.spin(lambda: client.ready)
    return client


def test_a_motion_that_succeeds(graph):
    client = arm(graph)
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.outcomes)
    assert graph.outcomes == [None]
    points = graph.executed[0].request.trajectory.points
    assert list(graph.executed[0].request.trajectory.joint_names) == ['a', 'b']
    assert len(points) == 3 and points[2].time_from_start.sec == 1


@pytest.mark.parametrize(('code', 'reason'), [
    (FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED, Reason.TRACKING_ERROR),
    (FollowJointTrajectory.Result.INVALID_GOAL, Reason.EXECUTION_ABORTED)])
def test_a_motion_that_is_aborted(graph, code, reason):
    def abort(handle):
        handle.abort()
        return FollowJointTrajectory.Result(error_code=code, error_string='because')

    client = arm(graph, abort)
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.outcomes)
    assert graph.outcomes[0].reason is reason
    assert 'because' in graph.outcomes[0].detail


def test_success_with_an_error_code_is_no_success(graph):
    def lie(handle):
        handle.succeed()
        return FollowJointTrajectory.Result(error_code=-5)

    client = arm(graph, lie)
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.outcomes)
    assert graph.outcomes[0].reason is Reason.TRACKING_ERROR


def test_a_rejected_motion(graph):
    client = arm(graph)
    graph.accept = False
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.outcomes)
    assert graph.outcomes[0].reason is Reason.GOAL_REJECTED


def test_an_absent_server_is_told_at_once(graph):
    arm(graph, served=False).move(SEGMENT, graph.done)
    assert graph.outcomes[0].reason is Reason.BACKEND_UNAVAILABLE


def test_a_silent_server_is_given_up(graph):
    client = arm(graph, patience=HASTE)
    graph.ended = Future()
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.outcomes, poll=client.poll)
    assert graph.outcomes[0].reason is Reason.BACKEND_UNAVAILABLE
    graph.ended.set_result(None)


def test_a_joint_far_from_its_set_point_ends_the_motion(graph):
    client = arm(graph)
    graph.ended = Future()
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.executed)
    feedback = FollowJointTrajectory.Feedback()
    feedback.error.positions = [0.0, -0.2]

    def report():
        if not graph.outcomes:
            graph.executed[0].publish_feedback(feedback)

    graph.spin(lambda: graph.outcomes, poll=report)
    assert graph.outcomes[0].reason is Reason.TRACKING_ERROR
    graph.ended.set_result(None)


NAN = float('nan')


@pytest.mark.parametrize(('names', 'error', 'desired', 'actual', 'expected'), [
    (('a', 'b'), (0.01, -0.03), (), (), 0.03),
    (('b', 'x', 'a'), (0.01, 9.0, 0.02), (), (), 0.02),
    ((), (0.01, 0.02), (), (), 0.02),
    (('a', 'b'), (), (1.0, 2.0), (1.0, 2.5), 0.5),
    (('a', 'b'), (), (), (), 'nobody tells'),
    (('a', 'b'), (0.0,), (), (), 'for 2 joints'),
    (('a', 'b'), (NAN, 0.0), (), (), 'not finite'),
    (('a', 'b'), (0.0, NAN), (), (), 'not finite'),
    (('a', 'c'), (0.0, 0.0), (), (), 'lack b'),
    (('a', 'b', 'a'), (0.0, 0.0, 0.0), (), (), 'named twice'),
    (('a', 'b'), (), (1.0, 2.0), (1.0,), 'nobody tells'),
])
def test_feedback_is_an_error_or_a_refusal_never_a_silent_zero(names, error, desired, actual, expected):
    feedback = FollowJointTrajectory.Feedback(joint_names=list(names))
    feedback.error.positions, feedback.desired.positions, feedback.actual.positions = map(
        list, (error, desired, actual))
    found = joint_error(feedback, ('a', 'b'))
    if isinstance(expected, float):
        assert found == pytest.approx(expected)
    else:
        assert isinstance(found, Malformed) and expected in str(found)


@pytest.mark.parametrize('positions', [[], [0.0, NAN], [NAN, 0.0]])
def test_feedback_that_tells_nothing_ends_the_motion(graph, positions):
    client = arm(graph)
    graph.ended = Future()
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.executed)
    feedback = FollowJointTrajectory.Feedback()
    feedback.error.positions = positions
    graph.spin(lambda: graph.outcomes, poll=lambda: graph.outcomes or graph.executed[0].publish_feedback(feedback))
    assert graph.outcomes[0].reason is Reason.TRACKING_ERROR and 'positions' in graph.outcomes[0].detail
    graph.ended.set_result(None)


def test_a_cancel_whose_answer_was_lost_is_sent_again_until_a_goal_follows(graph):
    client = arm(graph)
    requests = []

    class Deaf:
        def service_is_ready(self):
            return True

        def call_async(self, request):
            requests.append(request)
            return Future()

        def remove_pending_request(self, future):
            return None

    client._peer._cancel = Deaf()
    client.stop()
    graph.spin(lambda: len(requests) >= 3, poll=client.poll)
    client.move(SEGMENT, graph.done)
    sent = len(requests)
    graph.spin(lambda: graph.outcomes, poll=client.poll)
    assert len(requests) == sent, 'it would end the new goal'


def test_a_stop_cancels_and_the_old_goal_is_not_heard_again(graph):
    client = arm(graph)
    graph.ended = Future()
    client.move(SEGMENT, graph.done)
    graph.spin(lambda: graph.executed)
    client.stop()
    graph.spin(lambda: graph.cancels)
    graph.ended.set_result(None)
    for _ in range(20):
        graph.executor.spin_once(timeout_sec=0.01)
    assert graph.outcomes == []


def test_a_goal_accepted_after_the_stop_is_cancelled(graph):
    client = arm(graph)
    graph.ended = Future()
    client.move(SEGMENT, graph.done)
    client.stop()  # before the server has even seen the goal
    graph.spin(lambda: graph.cancels)
    graph.ended.set_result(None)
    assert graph.outcomes == []


def gripper(graph, kind, **result):
    def finish(handle):
        (handle.succeed if result.get('reached_goal') else handle.abort)()
        return kind.Result(**result)

    graph.serve(kind, '/hand', finish)
    client = GripperClient(graph.client, '/hand', kind.__name__, 'finger', linear(2.0, 0.0, 0.08), 20.0, PATIENCE)
    graph.spin(lambda: client.ready)
    return client


@pytest.mark.parametrize('kind', [ParallelGripperCommand, GripperCommand])
@pytest.mark.parametrize(('segment', 'result', 'good'), [
    (OPEN, {'reached_goal': True}, True), (CLOSE, {'reached_goal': True}, True), (CLOSE, {'stalled': True}, True),
    (OPEN, {'stalled': True}, False), (CLOSE, {}, False)])
def test_grippers(graph, kind, segment, result, good):
    client = gripper(graph, kind, **result)
    client.grip(segment, graph.done)
    graph.spin(lambda: graph.outcomes)
    if good:
        assert graph.outcomes == [None]
    else:
        unsure = segment is CLOSE
        assert graph.outcomes[0].reason is (Reason.GRASP_UNSETTLED if unsure else Reason.GRIPPER_FAILED)
    command = graph.executed[0].request.command
    position = command.position if kind is GripperCommand else command.position[0]
    assert position == pytest.approx(segment.target / 2)


def test_openings_follow_scale_and_offset(graph):
    client = GripperClient(graph.client, '/hand', 'GripperCommand', 'finger', linear(-0.1, 0.085, 0.085), 0.0, PATIENCE)
    assert client.opening(0.0) == 0.085
    assert client.opening(0.8) == pytest.approx(0.005)
    assert client._goal(0.085).command.position == pytest.approx(0.0)
