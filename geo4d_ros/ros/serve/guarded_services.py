"""Answers of a node's own services (rclpy's parameter services among them) whatever a request holds."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node


def guard_services(node: Node) -> None:
    """Wrap every service of `node`: one whose handler raises answers what it can, where rclpy would leave the caller
    without an answer (a parameter of an unknown type is enough)."""
    for service in node.services:
        if not hasattr(service.callback, 'guarded'):
            service.callback = _guarded(node, service.srv_type, service.callback)


def _guarded(node: Node, kind: Any, callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            node.get_logger().warning(traceback.format_exc(), throttle_duration_sec=5.0)
            return _failed(kind.Response(), request, f'{type(error).__name__}: {str(error)[:200]}')

    answer.guarded = True  # type: ignore[attr-defined]
    return answer


def _failed(response: Any, request: Any, cause: str) -> Any:
    result = SetParametersResult(successful=False, reason=cause)
    if hasattr(response, 'results'):
        response.results = [result for _ in request.parameters]
    elif hasattr(response, 'result'):
        response.result = result
    elif hasattr(response, 'success'):
        response.success = False
        if hasattr(response, 'message'):  # a lifecycle transition has none
            response.message = cause
    return response
