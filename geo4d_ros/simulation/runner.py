"""Runs a cell in its own thread against the wall clock, with its controllers, and hands out snapshots.

The thread is the only one that touches the simulator. Others read `state`, hand functions to `call`,
and start goals under `lock`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo4d_ros.simulation.controllers import GripperController, TrajectoryController

CONTROL_PERIOD = 0.004  # [s] between two ticks of the controllers
STATE_PERIOD = 0.008  # [s] between two snapshots: 125 Hz
MAX_DEBT = 0.1  # [s] the simulation may lag behind the wall clock before it lets the lag go


@dataclass(frozen=True)
class Snapshot:
    """One moment of the cell.

    stamp [ns] of the simulated clock; q, dq (n,) [rad, rad/s] measured; opening [m]; opening_velocity [m/s];
    T_base_gripper (4, 4); qpos: the simulator's whole configuration, for rendering; link_positions (L, 3) [m]
    and link_quaternions (L, 4) (w, x, y, z): the robot's links in the base frame, in the order of
    `CellRunner.link_names`; generation counts resets.
    """

    stamp: int
    q: np.ndarray
    dq: np.ndarray
    opening: float
    opening_velocity: float
    T_base_gripper: np.ndarray
    qpos: np.ndarray
    link_positions: np.ndarray
    link_quaternions: np.ndarray
    generation: int


class CellRunner:
    """Steps the cell `realtime_factor` times as fast as the wall clock (0 = as fast as it goes).

    make_cell builds the cell, at the start and on every reset; on_state, set before `start`, gets each
    snapshot in the simulation thread and must not block. The clock starts at 1 s and never goes back, not
    even on a reset.
    """

    def __init__(self, make_cell: Callable[[], Any], realtime_factor: float) -> None:
        self._make_cell = make_cell
        self.on_state: Callable[[Snapshot], None] = lambda state: None
        self.realtime_factor = realtime_factor
        self.lock = threading.Condition()
        self._calls: list[tuple[Callable[[], Any], Future]] = []
        self._clock, self._generation = 1.0, 0
        self._stopping = threading.Event()
        self._load(make_cell())
        self._thread = threading.Thread(target=self._run, name='simulation', daemon=True)

    def start(self) -> None:
        """Let the time run."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def running(self) -> bool:
        """Whether the simulation thread lives; false after `close` and after a failure in it."""
        return self._thread.is_alive() and not self._stopping.is_set()

    @property
    def now(self) -> float:
        """The simulated clock [s]."""
        return self._clock

    def call(self, function: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Run `function` in the simulation thread between two ticks; its result or its exception."""
        future: Future = Future()
        with self.lock:
            self._calls.append((function, future))
        return future.result(timeout)

    def reset(self, make_cell: Callable[[], Any] | None = None) -> None:
        """A fresh cell, from `make_cell` when given; running goals end as preempted."""
        make = make_cell or self._make_cell

        def replace() -> None:
            cell = make()
            self.trajectory.stop_at_once('the cell was reset')
            self.gripper.cancel()
            self._generation += 1
            self._load(cell)
            self._make_cell = make

        self.call(replace)

    def _load(self, cell: Any) -> None:
        with self.lock:
            self.cell = cell
            self.trajectory = TrajectoryController(cell.joint_positions, cell.robot.velocity_limits,
                                                   np.array(cell.robot.acceleration))
            self.gripper = GripperController()
            self._opening_target = cell.opening
            bodies = [cell.model.body(i) for i in range(cell.model.nbody)]
            links = [b for b in bodies if b.name in cell.robot.urdf.links]
            self.link_names = tuple(b.name for b in links)
            self._links = [b.id for b in links]
            self._steps = max(1, round(CONTROL_PERIOD / cell.dt))
            self.state = self._snapshot(cell.opening)
            self.lock.notify_all()

    def _snapshot(self, last_opening: float) -> Snapshot:
        cell = self.cell
        return Snapshot(
            stamp=round(self._clock * 1e9),
            q=np.array(cell.joint_positions),
            dq=np.array(cell.joint_velocities),
            opening=float(cell.opening),
            opening_velocity=(float(cell.opening) - last_opening) / STATE_PERIOD,
            T_base_gripper=np.array(cell.T_base_gripper),
            qpos=np.array(cell.data.qpos),
            link_positions=cell.data.xpos[self._links].copy(),
            link_quaternions=cell.data.xquat[self._links].copy(),
            generation=self._generation,
        )

    def set_opening_target(self, opening: float) -> None:
        """Begin a gripper command [m of opening]; hold `lock` while calling."""
        self.gripper.start(opening, self._clock)
        self._opening_target = opening
        self.cell.set_opening_target(opening)

    def _run(self) -> None:
        due, published = time.monotonic(), 0.0
        while not self._stopping.is_set():
            self._serve_calls()
            self._tick()
            if self._clock - published >= STATE_PERIOD - 1e-9:
                published = self._clock
                self.state = self._snapshot(self.state.opening)
                self.on_state(self.state)
            if self.realtime_factor > 0:
                due += self._steps * self.cell.dt / self.realtime_factor
                late = time.monotonic() - due
                if late < 0:
                    time.sleep(-late)
                elif late > MAX_DEBT:
                    due += late

    def _tick(self) -> None:
        with self.lock:
            cell = self.cell
            q, dq, before = cell.joint_positions, cell.joint_velocities, self.trajectory.goal
            cell.set_joint_target(self.trajectory.update(self._clock, q, dq), self.trajectory.dq)
            gripping = self.gripper.active
            self.gripper.update(self._clock, cell.opening)
            cell.step(self._steps)
            self._clock += self._steps * cell.dt
            if before is not self.trajectory.goal or gripping != self.gripper.active:
                self.lock.notify_all()

    def _serve_calls(self) -> None:
        with self.lock:
            calls, self._calls = self._calls, []
        for function, future in calls:
            try:
                future.set_result(function())
            except Exception as error:  # handed to the caller of `call`, who waits for it
                logging.getLogger(__name__).debug('a call into the simulation failed: %s', error)
                future.set_exception(error)
