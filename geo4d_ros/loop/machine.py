"""The receding-horizon loop as a pure function: `step(state, event, config) -> (state, actions)`.

Observe, predict, plan, (approve,) execute the first poses, settle, observe again. Nothing here reads a
clock, a topic or a file, so a recorded run gives the same decisions again (see `record.py`).
Motion is commanded in exactly one place (`_execute`), and stopped through exactly one (`_stop`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import dist

from geo4d_ros.loop.events import Action, ActionData, ActionKind, Event, EventKind
from geo4d_ros.loop.state import RESTING, LoopConfig, LoopState, Phase, Recovery
from geo4d_ros.reasons import Kind, Reason
from geo4d_ros.types import Verdict

__all__ = ['RESTING', 'LoopConfig', 'LoopState', 'Phase', 'Recovery', 'step']

# With the same scene the same plan is refused for the same reason: a loop that may first looks from somewhere else.
_LOOK_FROM_ELSEWHERE = frozenset({
    Reason.TRACK_LOST, Reason.GRASP_REPEATED, Reason.PLAN_EMPTY, Reason.PLAN_TOO_SHORT, Reason.CONFIDENCE_LOW,
    Reason.STEP_TOO_LARGE,
    Reason.OUTSIDE_WORKSPACE, Reason.INSIDE_KEEP_OUT, Reason.TABLE_CLEARANCE, Reason.TILT_TOO_LARGE, Reason.IK_FAILED,
    Reason.JOINT_LIMIT, Reason.JOINT_JUMP, Reason.SINGULARITY, Reason.COLLISION, Reason.TIMING_FAILED,
    Reason.TIMED_DEVIATION, Reason.LIMITS_EXCEEDED, Reason.PATH_INCOMPLETE})


Actions = tuple[Action, ...]
Result = tuple[LoopState, Actions]
Handler = Callable[[LoopState, Event, LoopConfig], Result]


def step(state: LoopState, event: Event, config: LoopConfig) -> Result:
    """What follows from one event: the next state and what to do, in order."""
    if event.time < state.now - config.clock_tolerance and state.phase not in RESTING:
        detail = f'event {state.now - event.time:.3f} s before the last'
        state, actions = _stop(replace(state, now=event.time), Reason.CLOCK_JUMP, detail, True, config)
        return state, actions
    now = event.time if state.phase in RESTING else max(state.now, event.time)
    state = replace(state, now=now)
    urgent = event.kind in (EventKind.STOP, EventKind.FAULT)  # these overrule any deadline
    if urgent or state.deadline is None or state.now <= state.deadline:
        return _handle(state, event, config)
    state, actions = _deadline_passed(state, config)
    if event.kind is not EventKind.TICK:  # an answer came too late, an operator saw the state before
        actions += _not_now(state, event)[1]
    return state, actions


def _handle(state: LoopState, event: Event, config: LoopConfig) -> Result:
    if event.kind is EventKind.TICK:
        over_time = state.phase not in (*RESTING, Phase.STOPPING) and state.now - state.started > config.max_seconds
        return _stop(state, Reason.TIME_LIMIT, '', False, config) if over_time else (state, ())
    if event.kind is EventKind.STOP:
        return _on_stop(state, config)
    if event.kind is EventKind.FAULT:
        return _on_fault(state, event, config)
    handler = _HANDLERS.get((state.phase, event.kind))
    if handler is None or event.data.get('cycle', state.cycle) != state.cycle:
        return _not_now(state, event)
    return handler(state, event, config)


def _not_now(state: LoopState, event: Event) -> Result:
    return state, (_report(Reason.NOT_ALLOWED_NOW, f'{event.kind.value} in {state.phase.value}'),)


def _report(reason: Reason, detail: str = '') -> Action:
    return Action(ActionKind.REPORT, {'reason': reason.code, 'detail': detail})


# --- the operator ---

def _on_start(state: LoopState, event: Event, config: LoopConfig) -> Result:
    fresh = LoopState(now=state.now, started=state.now, cycle=state.cycle, used_plans=state.used_plans,
                      gripper_closed=state.gripper_closed, single=event.kind is EventKind.STEP)
    return _observe(fresh, config)


def _on_reset(state: LoopState, event: Event, config: LoopConfig) -> Result:
    """What the gripper was told outlives a reset, unless it did not do it: then its measured opening tells."""
    closed = None if state.reason is Reason.GRIPPER_FAILED else state.gripper_closed
    return LoopState(now=state.now, cycle=state.cycle, used_plans=state.used_plans, gripper_closed=closed), ()


def _on_approve(state: LoopState, event: Event, config: LoopConfig) -> Result:
    if event.data['plan_id'] != state.plan_id:
        detail = f'{event.data["plan_id"]!r} approved, {state.plan_id!r} waits'
        return state, (_report(Reason.APPROVAL_WRONG_PLAN, detail),)
    return _execute(state, 0, config)


def _on_stop(state: LoopState, config: LoopConfig) -> Result:
    if state.phase in RESTING:
        return state, (Action(ActionKind.STOP, {'escalate': False}),)  # always sent: the operator may know better
    return _stop(state, Reason.OPERATOR_STOP, '', False, config)


# --- the cycle ---

def _observe(state: LoopState, config: LoopConfig) -> Result:
    """Begin a cycle, unless a limit is reached."""
    if state.cycles >= config.max_cycles:
        return _finish(state, Reason.CYCLE_LIMIT, f'{state.cycles} cycles')
    state = replace(state, phase=Phase.OBSERVING, cycle=state.cycle + 1, cycles=state.cycles + 1, plan_id=None,
                    recovery=None, segments=(), segment=0, deadline=state.now + config.observe_seconds)
    return state, (Action(ActionKind.OBSERVE, {'cycle': state.cycle}),)


def _on_observed(state: LoopState, event: Event, config: LoopConfig) -> Result:
    opening = event.data['opening']
    if state.gripper_closed and not opening > config.missed_opening:
        return _grasp_missed(state, event, f'opening {opening * 1e3:.1f} mm', config)
    positions = (*state.positions, _place(event))[-config.progress_cycles - 1:]
    state = replace(state, positions=positions)
    if _stuck(positions, config):
        return _stop(state, Reason.NO_PROGRESS, f'{config.progress_cycles} cycles', True, config)
    state = replace(state, phase=Phase.PREDICTING, deadline=state.now + config.predict_seconds)
    return state, (Action(ActionKind.PREDICT, {'cycle': state.cycle}),)


def _place(event: Event) -> tuple[float, ...]:
    """Of the tool (3,) [m], in the base frame; empty where it was not measured."""
    position = event.data.get('position')
    return () if position is None else tuple(position)


def _stuck(positions: tuple[tuple[float, ...], ...], config: LoopConfig) -> bool:
    if config.dry_run or len(positions) <= config.progress_cycles:
        return False
    return all(dist(p, positions[0]) < config.progress_distance for p in positions)


def _on_predicted(state: LoopState, event: Event, config: LoopConfig) -> Result:
    verdict, detail = event.data.get('verdict', Verdict.PROCEED.value), event.data.get('detail', '')
    if verdict == Verdict.UNFAMILIAR.value:
        return _refuse(state, Reason.SCENE_UNFAMILIAR, detail, config)
    hidden = verdict == Verdict.NOTHING_TO_DO.value and state.work_seen
    if verdict != Verdict.PROCEED.value and not hidden and not state.gripper_closed:
        return _no_work(state, Verdict(verdict), detail, config)
    state = replace(state, idle_count=0, work_seen=True)
    state = replace(state, phase=Phase.PLANNING, deadline=state.now + config.plan_seconds)
    return state, (Action(ActionKind.PLAN, {'cycle': state.cycle}),)


def _no_work(state: LoopState, verdict: Verdict, detail: str, config: LoopConfig) -> Result:
    """Nothing (more) to do: look again before believing it, then end."""
    state = replace(state, idle_count=state.idle_count + 1)
    if state.idle_count >= config.verdict_cycles or state.single:
        return _finish(state, Reason.TASK_DONE if verdict is Verdict.DONE else Reason.NOTHING_TO_DO, detail)
    return _observe(state, config)


def _grasp_missed(state: LoopState, event: Event, detail: str, config: LoopConfig) -> Result:
    """The gripper holds nothing, or not well: open it and leave, through the same gates."""
    if here := _place(event):
        state = replace(state, missed_at=(*state.missed_at, here)[-8:])
    if state.recovery is Recovery.OPEN:
        return _stop(state, Reason.GRIPPER_FAILED, 'closed during a recovery, which only opens it', True, config)
    state = replace(state, positions=(), done_count=0, misses=state.misses + 1)
    state, actions = _recover(state, Recovery.OPEN, config)
    return state, (_report(Reason.GRASP_MISSED, detail), *actions)


def _recover(state: LoopState, recovery: Recovery, config: LoopConfig) -> Result:
    """Wait for rest, since fingers that push or slip off move the arm; then `_plan_recovery`."""
    state = replace(state, phase=Phase.SETTLING, cycle=state.cycle + 1, plan_id=None, segments=(), segment=0,
                    recovery=recovery, deadline=state.now + config.settle_seconds)
    return state, (Action(ActionKind.AWAIT_STANDSTILL),)


def _plan_recovery(state: LoopState, config: LoopConfig) -> Result:
    state = replace(state, phase=Phase.PLANNING, deadline=state.now + config.plan_seconds)
    kind = state.recovery.value if state.recovery else ''
    again = max(1, state.refusals, state.blocked, state.misses)  # each time from farther away
    return state, (Action(ActionKind.PLAN_RECOVERY, {'cycle': state.cycle, 'recovery': kind, 'again': again}),)


def _on_planned(state: LoopState, event: Event, config: LoopConfig) -> Result:
    data = event.data
    if data['plan_id'] in state.used_plans:
        return _refuse(state, Reason.PLAN_REPEATED, data['plan_id'], config)
    quiet = (data['excursion'] < config.done_excursion and data['turn'] < config.done_turn and data['switches'] == 0
             and state.recovery is None)
    state = replace(state, plan_id=data['plan_id'], segments=tuple(data['segments']), segment=0,
                    used_plans=(*state.used_plans, data['plan_id'])[-32:],
                    done_count=state.done_count + 1 if quiet else 0)
    if state.done_count >= config.done_cycles:
        return _finish(state, Reason.TASK_DONE, f'{state.done_count} still predictions')
    if config.dry_run:
        return _next_cycle(replace(state, refusals=0), Reason.DRY_RUN, config)
    if config.auto:
        return _execute(state, 0, config)
    expires = state.now + config.approval_seconds
    state = replace(state, phase=Phase.AWAITING_APPROVAL, deadline=expires)
    return state, (Action(ActionKind.ASK_APPROVAL, {'plan_id': state.plan_id or '', 'expires': expires}),)


def _execute(state: LoopState, index: int, config: LoopConfig) -> Result:
    """Send segment `index` of the plan; after the last one, wait for rest."""
    if index >= len(state.segments):
        state = replace(state, phase=Phase.SETTLING, deadline=state.now + config.settle_seconds)
        return state, (Action(ActionKind.AWAIT_STANDSTILL),)
    segment = state.segments[index]
    allowed = config.execution_factor * segment['duration'] + config.execution_slack
    if segment['kind'] == 'gripper':
        allowed += config.gripper_seconds
    state = replace(state, phase=Phase.EXECUTING, segment=index, deadline=state.now + allowed)
    data: ActionData = {'plan_id': state.plan_id or '', 'index': index, 'segment': segment}
    return state, (Action(ActionKind.EXECUTE, data),)


def _on_segment_done(state: LoopState, event: Event, config: LoopConfig) -> Result:
    if event.data['plan_id'] != state.plan_id or event.data['index'] != state.segment:
        return _not_now(state, event)
    segment = state.segments[state.segment]
    if segment['kind'] == 'gripper':
        state = replace(state, gripper_closed=segment['closing'], positions=())
        if segment['closing'] and not event.data['opening'] > config.missed_opening:
            return _grasp_missed(state, event, f'opening {event.data["opening"] * 1e3:.1f} mm', config)
        state = replace(state, misses=0 if segment['closing'] else state.misses)
    elif state.recovery is None:
        state = replace(state, blocked=0)
        if _grasps_again(state, event, config):
            return _grasp_repeated(state, event, config)
    return _execute(state, state.segment + 1, config)


def _grasps_again(state: LoopState, event: Event, config: LoopConfig) -> bool:
    """Whether the gripper is about to close where it closed on nothing before."""
    here, following = _place(event), state.segments[state.segment + 1:state.segment + 2]
    closes = bool(following) and following[0]['kind'] == 'gripper' and following[0]['closing']
    return closes and bool(here) and any(dist(here, place) < config.same_grasp for place in state.missed_at)


def _grasp_repeated(state: LoopState, event: Event, config: LoopConfig) -> Result:
    """The same prediction again: look from elsewhere, a few times, then ask."""
    detail = ', '.join(f'{x:.3f}' for x in _place(event))
    state = replace(state, phase=Phase.PLANNING)
    return _refuse(state, Reason.GRASP_REPEATED, detail, config)


def _on_settled(state: LoopState, event: Event, config: LoopConfig) -> Result:
    if state.recovery is not None and state.plan_id is None:
        return _plan_recovery(state, config)
    if state.segments and state.recovery is None:  # an interrupted or empty motion is no success, nor is a way out
        state = replace(state, refusals=0)
    return _next_cycle(state, Reason.STEP_DONE, config)


def _next_cycle(state: LoopState, step_reason: Reason, config: LoopConfig) -> Result:
    """Look again, or end when one cycle was asked for."""
    if state.single:
        return _finish(state, step_reason, '')
    state, actions = _observe(state, config)
    return (state, (_report(step_reason), *actions)) if step_reason is Reason.DRY_RUN else (state, actions)


def _finish(state: LoopState, reason: Reason, detail: str) -> Result:
    state = replace(state, phase=Phase.DONE, reason=reason, detail=detail, deadline=None, segments=())
    return state, (_report(reason, detail),)


# --- what goes wrong ---

def _on_refused(state: LoopState, event: Event, config: LoopConfig) -> Result:
    return _refuse(state, Reason[event.data['reason']], event.data.get('detail', ''), config)


def _refuse(state: LoopState, reason: Reason, detail: str, config: LoopConfig) -> Result:
    """Drop this cycle's plan and look again; a few times in a row is a fault."""
    if reason.kind is Kind.FAULT:
        return _stop(state, reason, detail, True, config)
    if state.recovery is Recovery.RETREAT:  # what led to it was counted
        state, actions = _observe(state, config)
        return state, (_report(reason, detail), *actions)
    state = replace(state, refusals=state.refusals + 1)
    if state.single:
        return _finish(state, reason, detail)
    if state.refusals >= config.max_refusals:
        return _stop(state, Reason.TOO_MANY_REFUSALS, f'{state.refusals}, the last {reason.code} {detail}'.strip(),
                     True, config)
    stuck = reason in _LOOK_FROM_ELSEWHERE and state.phase is Phase.PLANNING and state.recovery is None
    state, actions = _recover(state, Recovery.RETREAT, config) if stuck and config.recover and not config.dry_run \
        else _observe(state, config)
    return state, (_report(reason, detail), *actions)


def _on_execution_refused(state: LoopState, event: Event, config: LoopConfig) -> Result:
    """A segment was not sent after all (the arm had moved): wait for rest, then look again.

    Two reasons say that it was sent and did not end well: the arm was held up, or the fingers were.
    """
    reason, detail = Reason[event.data['reason']], event.data.get('detail', '')
    if reason is Reason.TRACKING_ERROR:
        return _on_blocked(state, detail, config)
    if reason is Reason.GRASP_UNSETTLED:
        return _on_grasp_unsettled(state, event, detail, config)
    if reason.kind is Kind.FAULT or state.single or state.refusals + 1 >= config.max_refusals:
        return _stop(state, reason, detail, True, config)
    state = replace(state, refusals=state.refusals + 1, segments=())
    state, actions = _execute(state, 0, config)
    return state, (_report(reason, detail), *actions)


def _on_blocked(state: LoopState, detail: str, config: LoopConfig) -> Result:
    """Something is in the arm's way: a fault, unless the loop may go back a little and look again, a few times."""
    state = replace(state, blocked=state.blocked + 1)
    if not config.recover or state.single or state.blocked >= config.max_blocked:
        return _stop(state, Reason.MOTION_BLOCKED, f'{state.blocked}, the last {detail}', True, config)
    state, actions = _stop(state, Reason.TRACKING_ERROR, detail, False, config)
    return replace(state, recovery=Recovery.RETREAT), actions


def _on_grasp_unsettled(state: LoopState, event: Event, detail: str, config: LoopConfig) -> Result:
    """The fingers creep on something: no grasp to carry, so it opens and leaves. Opening has no such excuse."""
    segment = state.segments[state.segment]
    if segment['kind'] != 'gripper' or not segment['closing']:
        return _stop(state, Reason.GRIPPER_FAILED, detail, True, config)
    return _grasp_missed(replace(state, gripper_closed=True), event, detail, config)


def _on_fault(state: LoopState, event: Event, config: LoopConfig) -> Result:
    reason, detail = Reason[event.data['reason']], event.data.get('detail', '')
    if state.phase in RESTING:
        return state, (_report(reason, detail),)  # nothing moves and nothing will before the operator says so
    return _stop(state, reason, detail, True, config)


def _stop(state: LoopState, reason: Reason, detail: str, latch: bool, config: LoopConfig) -> Result:
    """The one path to a stop: nothing of the plan is left, and the arm has to be measured at rest."""
    if state.phase is Phase.STOPPING:
        return _stop_again(state, reason, detail, latch, config)
    state = replace(state, phase=Phase.STOPPING, reason=reason, detail=detail, latch=latch, escalated=False,
                    cycle=state.cycle + 1, plan_id=None, segments=(), segment=0, recovery=None,
                    deadline=state.now + config.stop_seconds)
    return state, (Action(ActionKind.STOP, {'escalate': False}), _report(reason, detail))


def _stop_again(state: LoopState, reason: Reason, detail: str, latch: bool, config: LoopConfig) -> Result:
    """Another cause while stopping: the first fault keeps the name, and the wait never gets longer."""
    if (latch and not state.latch) or state.recovery is not None:
        state = replace(state, latch=latch, reason=reason, detail=detail, recovery=None)
    deadline = min(state.deadline or state.now, state.now + config.stop_seconds)  # the clock may have jumped back
    state = replace(state, deadline=deadline)
    return state, (Action(ActionKind.STOP, {'escalate': state.escalated}), _report(reason, detail))


def _on_stopped(state: LoopState, event: Event, config: LoopConfig) -> Result:
    if state.latch:
        return replace(state, phase=Phase.FAULT, deadline=None), ()
    if state.recovery is not None:
        return _plan_recovery(replace(state, reason=None, detail=''), config)
    phase = Phase.IDLE if state.reason is Reason.OPERATOR_STOP else Phase.DONE
    return replace(state, phase=phase, deadline=None), ()


def _deadline_passed(state: LoopState, config: LoopConfig) -> Result:
    if state.phase is Phase.STOPPING:
        return _escalate(state, config)
    if state.phase is Phase.EXECUTING:
        gripper = state.segments[state.segment]['kind'] == 'gripper'
        return _stop(state, Reason.GRIPPER_FAILED if gripper else Reason.EXECUTION_TIMEOUT, 'no answer in time',
                     True, config)
    if state.phase is Phase.SETTLING:
        return _stop(state, Reason.SETTLE_TIMEOUT, '', True, config)
    reason = {Phase.OBSERVING: Reason.OBSERVATION_TIMEOUT, Phase.PREDICTING: Reason.PREDICTION_TIMEOUT,
              Phase.PLANNING: Reason.TRACKING_FAILED, Phase.AWAITING_APPROVAL: Reason.APPROVAL_EXPIRED}[state.phase]
    return _refuse(state, reason, 'no answer in time', config)


def _escalate(state: LoopState, config: LoopConfig) -> Result:
    """The arm is not at rest in time: stop again, harder; the second time, latch and say so."""
    stop = Action(ActionKind.STOP, {'escalate': True})
    if state.recovery is not None:  # an arm that stops badly does not go on by itself
        state = replace(state, recovery=None, latch=True)
    if not state.escalated:
        return replace(state, escalated=True, deadline=state.now + config.stop_seconds), (stop,)
    detail = f'after {state.reason.code if state.reason else "a stop"}'
    state = replace(state, phase=Phase.FAULT, reason=Reason.STOP_NOT_CONFIRMED, detail=detail, deadline=None)
    return state, (stop, _report(Reason.STOP_NOT_CONFIRMED, detail))


_HANDLERS: dict[tuple[Phase, EventKind], Handler] = {
    (Phase.IDLE, EventKind.START): _on_start,
    (Phase.IDLE, EventKind.STEP): _on_start,
    (Phase.DONE, EventKind.START): _on_start,
    (Phase.DONE, EventKind.STEP): _on_start,
    (Phase.DONE, EventKind.RESET): _on_reset,
    (Phase.FAULT, EventKind.RESET): _on_reset,
    (Phase.OBSERVING, EventKind.OBSERVED): _on_observed,
    (Phase.OBSERVING, EventKind.REFUSED): _on_refused,
    (Phase.PREDICTING, EventKind.PREDICTED): _on_predicted,
    (Phase.PREDICTING, EventKind.REFUSED): _on_refused,
    (Phase.PLANNING, EventKind.PLANNED): _on_planned,
    (Phase.PLANNING, EventKind.REFUSED): _on_refused,
    (Phase.AWAITING_APPROVAL, EventKind.APPROVE): _on_approve,
    (Phase.AWAITING_APPROVAL, EventKind.REFUSED): _on_refused,
    (Phase.EXECUTING, EventKind.SEGMENT_DONE): _on_segment_done,
    (Phase.EXECUTING, EventKind.REFUSED): _on_execution_refused,
    (Phase.SETTLING, EventKind.STANDSTILL): _on_settled,
    (Phase.STOPPING, EventKind.STANDSTILL): _on_stopped,
}
