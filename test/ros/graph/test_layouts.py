"""What RViz and Foxglove are set up to show exists in the graph."""

import json
import re

import yaml

from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.policies import PROCESSES, read_policy


def published():
    """Topics that a node of the loop or the simulated cell publishes, as the policies have them."""
    policies = [read_policy(resource('config', 'sros2', f'{process}.xml').read_text()) for process in PROCESSES]
    return {topic for policy in policies for kinds in policy.values() for topic in kinds.get(('topics', 'publish'), ())}


def values(tree, key):
    """Every value under `key`, anywhere in a tree of dicts and lists."""
    if isinstance(tree, dict):
        return [v for k, v in tree.items() if k == key] + [x for v in tree.values() for x in values(v, key)]
    return [x for v in tree for x in values(v, key)] if isinstance(tree, list) else []


def panels(tree):
    return [p for side in ('first', 'second') for p in panels(tree[side])] if isinstance(tree, dict) else [tree]


def test_the_foxglove_layout_shows_topics_of_the_graph_and_places_every_panel_once():
    layout = json.loads(resource('config', 'foxglove.json').read_text())
    configured = layout['configById']
    assert sorted(panels(layout['layout'])) == sorted(configured)
    named = {name for key in ('imageTopic', 'calibrationTopic', 'topicToRender', 'topic') for name in
             values(configured, key)}
    named |= set(configured['3D!scene']['topics'])
    named |= {re.match(r'/[\w/]+', path)[0] for key in ('topicPath', 'value') for path in values(configured, key)}
    assert len(named) > 12 and named <= published(), named - published()


def test_the_rviz_configuration_shows_topics_of_the_graph():
    config = yaml.safe_load(resource('config', 'plan_and_execute.rviz').read_text())
    topics = {f'/{t["Value"]}' for key in ('Topic', 'Description Topic') for t in values(config, key)}
    assert len(topics) > 5 and topics <= published(), topics - published()
