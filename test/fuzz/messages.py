"""Hypothesis strategies for any ROS message: random from its definition, and good ones with one field spoilt."""

from __future__ import annotations

import array
import copy
import importlib
import re
import sys

from hypothesis import strategies as st

INTEGERS = {f'{"u" if unsigned else ""}int{bits}': (0 if unsigned else -2**(bits - 1),
                                                    2**(bits if unsigned else bits - 1) - 1)
            for bits in (8, 16, 32, 64) for unsigned in (True, False)}
# Names and numbers that the nodes know, so that some of what is random gets past the first check.
WORDS = ('panda_joint1', 'panda_finger_joint1', 'panda_link0', 'panda_hand_tcp', 'rgb8', '16UC1', '32FC1', 'plumb_bob',
         '/', '', '\x00', 'ä' * 50, 'x' * 5000, '{"stamp":1e999}', '{"plan":"a","stamp":1}', '[' * 5000, '}{')
FLOATS = (float('nan'), float('inf'), float('-inf'), 0.0, -0.0, 1.0, -1e-300, 1e300)
SECONDS = (-2**31, -1, 0, 1, 1_800_000_000, 2**31 - 1)  # before 1970, now, the last moment of int32
LONGEST = 200


def kind_of(name: str) -> type:
    """'sensor_msgs/Image' or 'sensor_msgs/msg/Image' -> class; services and actions likewise."""
    package, *between, last = name.split('/')
    action, _, part = last.rpartition('_')
    if part == 'FeedbackMessage':
        return kind_of(f'{package}/action/{action}').Impl.FeedbackMessage
    if part in ('Goal', 'Feedback', 'Result'):
        return getattr(kind_of(f'{package}/action/{action}'), part)
    return getattr(importlib.import_module(f'{package}.{between[0] if between else "msg"}'), last)


def messages(kind: type) -> st.SearchStrategy:
    """Any message of a kind."""
    fields = {name: values(text, name) for name, text in kind.get_fields_and_field_types().items()}
    return st.fixed_dictionaries(fields).map(lambda found: kind(**found))


def values(text: str, name: str = '') -> st.SearchStrategy:
    """Any value of a field's type, as the definition writes it."""
    sequence = re.fullmatch(r'sequence<(.+?)(?:, (\d+))?>', text)
    fixed = re.fullmatch(r'(.+)\[(\d+)\]', text)
    if sequence or fixed:
        inner = (sequence or fixed).group(1)
        size = int(fixed.group(2)) if fixed else None
        longest = size if fixed else int(sequence.group(2) or LONGEST)
        if inner in ('uint8', 'octet') and not fixed and inner == 'uint8':
            return st.binary(max_size=longest * 8).map(lambda data: array.array('B', data))
        simple = '/' not in inner
        return st.lists(values(inner), min_size=size or 0, max_size=longest if simple or fixed else min(5, longest))
    if text == 'string' or text.startswith('string<'):
        bound = int(text[7:-1]) if '<' in text else None
        return (st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=['Cs']), max_size=30)).filter(
            lambda word: bound is None or len(word) <= bound)
    if text == 'boolean':
        return st.booleans()
    if text in ('double', 'float'):
        top = 3.4e38 if text == 'float' else sys.float_info.max
        return (st.sampled_from(FLOATS) | st.floats(-top, top)).filter(
            lambda x: text == 'double' or not abs(x) > 3.4e38 or x in (float('inf'), float('-inf')))
    if text == 'octet':
        return st.binary(min_size=1, max_size=1)
    if text in INTEGERS:
        low, high = INTEGERS[text]
        if name == 'nanosec':
            return st.sampled_from((0, 1, 999_999_999, 2**32 - 1))
        return st.sampled_from(SECONDS) if name == 'sec' else st.integers(low, high) | st.integers(0, 8).filter(
            lambda x: low <= x <= high)
    return messages(kind_of(text))


def spoilt(good) -> st.SearchStrategy:
    """A copy of a good message in which one field, at any depth, has any value of its type."""
    def leaves(message, path=()):
        for name, text in message.get_fields_and_field_types().items():
            value = getattr(message, name)
            yield (*path, name), text
            if hasattr(value, 'get_fields_and_field_types'):
                yield from leaves(value, (*path, name))
            elif isinstance(value, list) and value and hasattr(value[0], 'get_fields_and_field_types'):
                yield from leaves(value[0], (*path, name, 0))

    def change(path, value):
        message = copy.deepcopy(good)
        target = message
        for part in path[:-1]:
            target = target[part] if isinstance(part, int) else getattr(target, part)
        setattr(target, path[-1], value)
        return message

    places = list(leaves(good))
    return st.sampled_from(places).flatmap(
        lambda place: values(place[1], place[0][-1]).map(lambda value: change(place[0], value)))
