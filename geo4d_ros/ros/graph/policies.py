"""SROS 2 policies: what a node may publish, hear, serve and call, as it is in a running graph.

The files in config/sros2/ are what `policy` gives for the nodes of the loop; a test compares them with the graph.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.node import Node

# enclave (one per process) -> names of its nodes; their helpers belong to them
PROCESSES = {
    'plan_executor': ('plan_executor', 'plan_executor_senses', 'plan_executor_guardian'),  # its child too
    'prediction': ('video_generator', 'video_generator_cameras', 'video_generator_requests', 'gripper_tracker'),
    'simulated_cell': ('simulated_cell',),
}
KINDS = (('topics', 'publish'), ('topics', 'subscribe'), ('services', 'reply'), ('services', 'request'),
         ('actions', 'execute'), ('actions', 'call'))


def access(observer: Node, name: str) -> dict[tuple[str, str], set[str]]:
    """(kind, permission) -> names that the node called `name` (root namespace) uses, as observer sees it."""
    # Here, since the pages of the documentation are made from the policies where no ROS is.
    from rclpy.action import get_action_client_names_and_types_by_node, get_action_server_names_and_types_by_node

    found: dict[tuple[str, str], set[str]] = {
        ('topics', 'publish'): _names(observer.get_publisher_names_and_types_by_node(name, '/')),
        ('topics', 'subscribe'): _names(observer.get_subscriber_names_and_types_by_node(name, '/')),
        ('services', 'reply'): _names(observer.get_service_names_and_types_by_node(name, '/')),
        ('services', 'request'): _names(observer.get_client_names_and_types_by_node(name, '/')),
        ('actions', 'execute'): _names(get_action_server_names_and_types_by_node(observer, name, '/')),
        ('actions', 'call'): _names(get_action_client_names_and_types_by_node(observer, name, '/')),
    }
    # What an action is made of comes with its own line. The guardian cancels by the service alone.
    for key in list(found)[:4]:
        found[key] = {n for n in found[key] if '/_action/' not in n or n.endswith('/cancel_goal')}
    return found


def _names(entries: Any) -> set[str]:
    return {name for name, _ in entries}


def policy(process: str, nodes: dict[str, dict[tuple[str, str], set[str]]]) -> str:
    """The policy file of one process as text."""
    root = ElementTree.Element('policy', version='0.2.0')
    enclave = ElementTree.SubElement(ElementTree.SubElement(root, 'enclaves'), 'enclave', path=f'/geo4d/{process}')
    profiles = ElementTree.SubElement(enclave, 'profiles')
    for node in sorted(nodes):
        profile = ElementTree.SubElement(profiles, 'profile', ns='/', node=node)
        for kind, permission in KINDS:
            names = sorted(nodes[node].get((kind, permission), ()))
            if names:
                group = ElementTree.SubElement(profile, kind, {permission: 'ALLOW'})
                for name in names:
                    ElementTree.SubElement(group, kind[:-1]).text = name
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n'


def read_policy(text: str) -> dict[str, dict[tuple[str, str], set[str]]]:
    """node -> access, of a policy file."""
    out: dict[str, dict[tuple[str, str], set[str]]] = {}
    for profile in ElementTree.fromstring(text).iter('profile'):
        node = out.setdefault(profile.attrib['node'], {})
        for kind, permission in KINDS:
            names = {element.text for group in profile.findall(kind) if group.get(permission) == 'ALLOW'
                     for element in group}
            if names:
                node[kind, permission] = {str(name) for name in names}
    return out
