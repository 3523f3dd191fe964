"""The endpoint `/1.0/instances/NAME/state`: starting, stopping and freezing."""

from __future__ import annotations

from dataclasses import replace

from lxdsched.sandbox.answers import Answer, LXDError, sync
from lxdsched.sandbox.bodies import Shape, is_flag, is_integer, is_text
from lxdsched.sandbox.instances import found
from lxdsched.sandbox.questions import Question
from lxdsched.sandbox.records import Instance, Status, ordered

_STATE_PUT = Shape(
    "InstanceStatePut", {"action": is_text, "timeout": is_integer, "force": is_flag, "stateful": is_flag}
)

_GERUNDS = {
    "start": "Starting",
    "stop": "Stopping",
    "restart": "Restarting",
    "freeze": "Freezing",
    "unfreeze": "Unfreezing",
}


def show_state(question: Question) -> Answer:
    """`GET /1.0/instances/NAME/state`."""
    return sync(found(question).show_state())


def put_state(question: Question) -> Answer:
    """`PUT /1.0/instances/NAME/state`: start, stop, restart, freeze or unfreeze."""
    instance = found(question)
    body = _STATE_PUT.read(question.body)
    action = body.text("action")
    if action not in _GERUNDS:
        raise LXDError(400, f"Unknown action: '{action}'")
    resources = {"instances": [f"/1.0/instances/{instance.name}"]}
    return question.state.run(
        f"{_GERUNDS[action]} instance", resources, lambda: _act(question, instance, action, force=body.flag("force"))
    ).answer()


def _act(question: Question, instance: Instance, action: str, *, force: bool) -> None:
    state, status = question.state, instance.status
    if action == "start" and status.up:
        raise LXDError(400, "The instance is already running")
    if action in {"stop", "restart"} and not status.up:
        raise LXDError(400, "The instance is already stopped")
    if action in {"freeze", "unfreeze"}:
        if not status.up:
            raise LXDError(400, "The container isn't running")
        if (status is Status.FROZEN) == (action == "freeze"):
            raise LXDError(400, f"The container is already {'frozen' if action == 'freeze' else 'running'}")
    target, event = {
        "start": (Status.RUNNING, "instance-started"),
        "stop": (Status.STOPPED, "instance-stopped" if force else "instance-shutdown"),
        "restart": (Status.RUNNING, "instance-restarted"),
        "freeze": (Status.FROZEN, "instance-paused"),
        "unfreeze": (Status.RUNNING, "instance-resumed"),
    }[action]
    config = dict(instance.config)
    if action in {"start", "stop"}:
        config.pop("volatile.apply_template", None)
        config["volatile.last_state.power"] = target.name
    used = state.now() if action in {"start", "restart"} else instance.last_used_at
    changed = replace(instance, status=target, config=ordered(config), last_used_at=used, row=None)
    if action == "stop" and instance.ephemeral:
        state.database.remove_instance(instance.project, instance.name)
        state.database.tell(event, changed, question.cause)
    else:
        state.database.put_instance(changed, event, question.cause)
