"""Start, spin and end of a node process: clean on SIGINT and SIGTERM, exit code 0, one line on bad input."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import rclpy
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
)
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers

from geo4d_ros.errors import Geo4dError, NodeFailure
from geo4d_ros.ros.serve.diagnostics import ERROR
from geo4d_ros.ros.serve.guarded_services import guard_services
from geo4d_ros.ros.serve.lifecycle import bring_up

# A spin without timeout misses the wake-up of a signal in some 6 % of the cases (rclpy 7.1).
SPIN_TIMEOUT_S = 0.2


def run_nodes(factories: Sequence[Callable[[], Node]], args: list[str] | None = None, threads: int = 1) -> int:
    """Create the nodes in this process and spin them until a signal; the exit code of the process.

    0 after SIGINT or SIGTERM, 2 when a node cannot be created from its parameters (one line says why), 3 after a
    NodeFailure.
    A node with a `close()` method has it called before it is destroyed.
    """
    rclpy.init(args=args)
    nodes: list[Node] = []
    executor = _pool(threads) if threads > 1 else SingleThreadedExecutor()
    code = 0
    try:
        _make(factories, executor, nodes)
        while rclpy.ok():
            _spin(executor, nodes)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except NodeFailure as error:
        print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr, flush=True)
        code = 3
    except (Geo4dError, InvalidParameterTypeException, InvalidParameterValueException,
            ParameterAlreadyDeclaredException) as error:
        print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr, flush=True)
        code = 2
    except Exception:  # RCLError, ValueError of an action, or pybind11's error: whatever had no context any more
        if rclpy.ok():  # else the signal came between two steps of the spin
            raise
    finally:
        end(executor, nodes)
    return code


def _make(factories: Sequence[Callable[[], Node]], executor: SingleThreadedExecutor, nodes: list[Node]) -> None:
    """Create the nodes; a signal meanwhile ends the process at once, with exit code 0.

    A node that is half made cannot be closed, its threads spin without a context (signal 11), and nothing moves yet.
    """
    try:
        for factory in factories:
            nodes.append(factory())
            guard_services(nodes[-1])
            bring_up(nodes[-1])
            executor.add_node(nodes[-1])
    except BaseException:
        if rclpy.ok():
            raise
    if not rclpy.ok():
        leave(0)


def leave(code: int) -> NoReturn:
    """End the process here, without the interpreter's own end and its libraries' one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _spin(executor: SingleThreadedExecutor, nodes: list[Node]) -> None:
    """One round; a callback that failed is reported and the node lives on, unless it says that it cannot."""
    try:
        executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
    except (NodeFailure, ExternalShutdownException):
        raise
    except Exception as error:
        if not rclpy.ok():
            raise
        for node in nodes:
            node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
            report = getattr(node, 'diagnostics', None)
            if report is not None:
                report.set('callback', ERROR, f'a callback failed: {type(error).__name__}: {str(error)[:200]}')


def _pool(threads: int) -> MultiThreadedExecutor:
    """An executor whose threads all run from the start.

    Its ThreadPoolExecutor would start each when so many requests first overlap, perhaps hours later, which looks
    like a leak to whoever counts threads.
    """
    executor = MultiThreadedExecutor(threads)
    everybody_is_here = threading.Barrier(threads)
    for _ in range(threads):
        executor._executor.submit(everybody_is_here.wait, 10.0)
    return executor


def run_node(factory: Callable[[], Node], args: list[str] | None = None, threads: int = 1) -> int:
    """`run_nodes` for one node."""
    return run_nodes([factory], args, threads)


def end(executor: SingleThreadedExecutor, nodes: list[Node]) -> None:
    """Shut down in the one order that neither hangs nor crashes; later signals are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A thread of rclpy's wakes the executors after a signal, one after the other and without a lock. It may still be at
    # it: an executor that ended now would free the list under its hands (signal 11). This waits for the thread.
    steps: list[Callable[[], object]] = [uninstall_signal_handlers, lambda: executor.shutdown(timeout_sec=1.0)]
    for node in nodes:
        steps += [node.close] if hasattr(node, 'close') else []
        steps.append(node.destroy_node)
    for step in [*steps, rclpy.try_shutdown]:
        try:
            step()
        except KeyboardInterrupt:  # a second signal, under way when they were switched off: finish all the same
            step()
