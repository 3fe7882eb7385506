"""A port without a cell behind it: it answers what the test says, when it says, and remembers what it was told."""

from dataclasses import replace

import numpy as np
from fakes.panda import HOME, urdf_text

from geo4d_ros.loop.driver import Driver
from geo4d_ros.loop.events import EventKind
from geo4d_ros.loop.port import Predicted, Watcher
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

NOW = 50_000_000_000  # [ns]
LIMITS = replace(MotionLimits(), dwell=0.0)
MODEL = RobotModel.from_urdf(urdf_text())


class StubPort:
    """Everything is good until an attribute says otherwise; time passes only when told to (`steady`, `now`)."""

    def __init__(self):
        self.model, self.scene = MODEL, Scene.table()
        self.steady, self.now = 1000.0, NOW
        self.not_ready = self.sick = self.view = None
        self.stop_wish = False
        self.resting = True
        self.state = RobotState(HOME.copy(), np.zeros(7), 0.08, NOW)
        self.age = 0  # [ns] of the joint state
        self.calls, self.asked, self.held = [], [], []
        self.looks = True  # cameras answer at once
        self.done = None  # of the running motion

    def clock(self):
        return self.steady

    def stamp(self):
        return self.now

    def ready(self, moves):
        self.calls.append(f'ready {moves}')
        return self.not_ready

    def health(self):
        return self.sick

    def stop_asked(self):
        wish, self.stop_wish = self.stop_wish, False
        return wish

    def robot_state(self, gripper_closed):
        if not isinstance(self.state, RobotState):
            return self.state
        return replace(self.state, stamp=self.now - self.age, gripper_closed=gripper_closed)

    def at_rest(self, since):
        return self.resting

    def observe(self, done):
        self.calls.append('observe')
        self.look = done
        if self.looks:
            done(self.view)

    def predict(self, done):
        self.calls.append('predict')
        self.asked.append(done)

    def track(self, predicted, done):
        self.calls.append('track')
        self.tracking = done

    def move(self, segment, done):
        self.calls.append('move')
        self.segment, self.done = segment, done

    def grip(self, segment, done):
        self.calls.append('grip')
        self.segment, self.done = segment, done

    def stop(self, hold):
        self.calls.append('stop')
        self.held.append(hold)
        self.done = None

    def poll(self, moving):
        self.calls.append('poll moving' if moving else 'poll')

    # --- what the test does ---

    @property
    def motions(self):
        """What was commanded: move, grip, stop."""
        return [c for c in self.calls if c in ('move', 'grip', 'stop')]

    @property
    def sent(self):
        """Motions without the stops."""
        return [c for c in self.motions if c != 'stop']

    def predicted(self, plan_id='plan', age=100_000_000):
        """The generator answers, one second later; age [ns] of its observation."""
        self.now += 1_000_000_000
        self.predicted_stamp = self.now - age
        self.asked.pop()(Predicted(plan_id, self.predicted_stamp, {'frames': 11}))

    def finish(self, refusal=None):
        """The running motion ends, the arm where it should be, the fingers as they were told."""
        if self.done is None:
            return
        done, self.done = self.done, None
        if refusal is None and isinstance(self.state, RobotState):
            if hasattr(self.segment, 'target'):
                self.state = replace(self.state, opening=self.segment.target or 0.03)
            else:
                self.state = replace(self.state, q=self.segment.q[-1].copy())
        done(refusal)


class Notes(Watcher):
    """Keeps all that the driver says."""

    def __init__(self):
        self.reports, self.words, self.errors, self.cycles, self.refusals, self.actions, self.plans = ([] for _ in
                                                                                                      range(7))

    def changed(self, report):
        self.reports.append(report)

    def said(self, refusal):
        self.words.append(refusal)

    def erred(self, text):
        self.errors.append(text)

    def acted(self, kind, data):
        self.actions.append(kind)

    def judged(self, plan, result):
        self.plans.append((plan, result))

    def refused(self, refusal):
        self.refusals.append(refusal)

    def cycle(self, summary):
        self.cycles.append(summary)


class Bench:
    """A driver over a stub port."""

    def __init__(self, config, limits=LIMITS, poses=5):
        self.port, self.notes = StubPort(), Notes()
        self.driver = Driver(self.port, self.notes)
        self.driver.configure(config, limits, poses)

    @property
    def phase(self):
        return self.driver.phase

    @property
    def reason(self):
        return self.driver.state.reason

    def begin(self, kind='STEP', **options):
        return self.driver.begin(EventKind[kind], **options)

    def tick(self, seconds=0.02):
        self.port.steady += seconds
        self.port.now += round(seconds * 1e9)
        self.driver.tick()

    def plan(self, plan_id='plan', opening=0.08, poses=4, **changes):
        """Generator and tracker answer with a slide of 1 cm a pose."""
        if self.port.asked:
            self.port.predicted(plan_id)
        plan = self.slide(plan_id, opening, poses, **changes)
        if self.port.calls[-1:] == ['track']:
            self.port.tracking(plan)
        return plan

    def slide(self, plan_id='plan', opening=0.08, poses=4, **changes):
        """A plan from where the arm stands; opening [m]: one for all or one per pose."""
        T_start = MODEL.forward(HOME)
        T = np.tile(T_start, (poses, 1, 1))
        T[:, 1, 3] += 0.01 * np.arange(1, poses + 1)
        stamp = getattr(self.port, 'predicted_stamp', self.port.now)
        values = {'id': plan_id, 'T_base_gripper': T, 'opening': np.broadcast_to(opening, poses).astype(float),
                  'time_from_start': 0.5 * np.arange(1, poses + 1), 'observation_stamp': stamp,
                  'T_base_gripper_start': T_start, 'opening_start': 0.08, 'confidence': np.ones(poses)}
        return Plan(**(values | changes))
