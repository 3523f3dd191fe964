"""The endpoints of profiles and projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lxdsched.sandbox.answers import Answer, LXDError, created, done, in_project, listing, sync
from lxdsched.sandbox.bodies import Shape, is_devices, is_text, is_text_map
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.questions import Question, forbidden
from lxdsched.sandbox.records import Profile, Project, Row, ordered
from lxdsched.sandbox.validate import check_instance_config, check_plain_name, check_project_config

_PROFILE_FIELDS = {"config": is_text_map, "devices": is_devices, "description": is_text}
_PROFILE_POST = Shape("ProfilesPost", _PROFILE_FIELDS | {"name": is_text})
_PROFILE_PUT = Shape("ProfilePut", _PROFILE_FIELDS)
_PROJECT_POST = Shape("ProjectsPost", {"name": is_text, "config": is_text_map, "description": is_text})


# Profiles


def _profile_project(question: Question) -> str:
    project = question.allowed_project()
    try:
        return question.database.profile_project(project)
    except KeyError:
        raise LXDError(404, f'Failed loading project "{project}": Project not found') from None


def _profile(question: Question, complaint: str) -> Profile:
    key = (_profile_project(question), question.names["name"])
    try:
        return question.database.profiles[key]
    except KeyError:
        raise LXDError(404, complaint + "Profile not found") from None


def _show_profile(database: Database, profile: Profile) -> Row:
    return {
        "config": profile.config,
        "description": profile.description,
        "devices": profile.devices,
        "name": profile.name,
        "used_by": [
            in_project(f"/1.0/instances/{instance.name}", instance.project) for instance in database.users_of(profile)
        ],
    }


def show_profiles(question: Question) -> Answer:
    """`GET /1.0/profiles`: those of the project, or of the default one where it has none of its own."""
    project = _profile_project(question)
    mine = [profile for profile in question.database.profiles.values() if profile.project == project]
    if question.recursion:
        return sync([_show_profile(question.database, profile) for profile in mine])
    return listing([in_project(f"/1.0/profiles/{profile.name}", project) for profile in mine])


def create_profile(question: Question) -> Answer:
    """`POST /1.0/profiles`."""
    project = _profile_project(question)
    body = _PROFILE_POST.read(question.body)
    name = body.text("name")
    check_plain_name("Profile", name)
    check_instance_config(body.text_map("config"))
    if (project, name) in question.database.profiles:
        raise LXDError(500, f'Error inserting "{name}" into database: The profile already exists')
    question.database.put_profile(
        Profile(
            name,
            project,
            ordered(body.text_map("config")),
            ordered(body.devices("devices")),
            body.text("description"),
        ),
        question.cause,
    )
    return created(in_project(f"/1.0/profiles/{name}", project))


def show_profile(question: Question) -> Answer:
    """`GET /1.0/profiles/NAME`."""
    return sync(_show_profile(question.database, _profile(question, "Fetch profile: ")))


def put_profile(question: Question) -> Answer:
    """`PUT /1.0/profiles/NAME`: everything anew."""
    profile = _profile(question, f'Failed to retrieve profile "{question.names["name"]}": ')
    body = _PROFILE_PUT.read(question.body)
    return _store_profile(
        question, profile, body.text_map("config"), body.devices("devices"), body.text("description"), everywhere=True
    )


def patch_profile(question: Question) -> Answer:
    """`PATCH /1.0/profiles/NAME`: given keys join the others, empty ones go. LXD tells no other member's instances."""
    profile = _profile(question, f'Failed to retrieve profile="{question.names["name"]}": ')
    body = _PROFILE_PUT.read(question.body)
    config = dict(profile.config) | body.text_map("config")
    devices = dict(profile.devices) | body.devices("devices")
    description = body.text("description") if "description" in body else profile.description
    return _store_profile(question, profile, config, devices, description, everywhere=False)


def _store_profile(
    question: Question,
    profile: Profile,
    config: Mapping[str, str],
    devices: Mapping[str, Mapping[str, str]],
    description: str,
    *,
    everywhere: bool,
) -> Answer:
    try:
        check_instance_config(config)
    except LXDError as problem:
        raise LXDError(500, problem.message) from None
    question.database.put_profile(
        replace(profile, config=ordered(config), devices=ordered(devices), description=description),
        question.cause,
        everywhere=everywhere,
    )
    return done()


def delete_profile(question: Question) -> Answer:
    """`DELETE /1.0/profiles/NAME`, which no instance may have."""
    if question.names["name"] == "default":
        raise LXDError(403, 'The "default" profile cannot be deleted')
    profile = _profile(question, "")
    if question.database.users_of(profile):
        raise LXDError(500, "Profile is currently in use")
    question.database.remove_profile(profile.project, profile.name, question.cause)
    return done()


# Projects


def _project(question: Question) -> Project:
    name = question.names["name"]
    if not question.caller.may_use(name):
        raise forbidden()
    try:
        return question.database.projects[name]
    except KeyError:
        raise LXDError(404, "Project not found") from None


def _contents(database: Database, project: Project) -> list[str]:
    """The addresses of what lives in a project, except its default profile."""
    instances = [f"/1.0/instances/{name}" for owner, name in database.instances if owner == project.name]
    profiles = [
        f"/1.0/profiles/{name}" for owner, name in database.profiles if owner == project.name and name != "default"
    ]
    return [in_project(url, project.name) for url in instances + profiles]


def _show_project(database: Database, project: Project) -> Row:
    contents = _contents(database, project)
    if project.own_profiles:
        contents.append(in_project("/1.0/profiles/default", project.name))
    return {
        "config": project.config,
        "description": project.description,
        "name": project.name,
        "used_by": contents,
    }


def show_projects(question: Question) -> Answer:
    """`GET /1.0/projects`: those the caller may use."""
    mine = [each for each in question.database.projects.values() if question.caller.may_use(each.name)]
    if question.recursion:
        return sync([_show_project(question.database, project) for project in mine])
    return listing([f"/1.0/projects/{project.name}" for project in mine])


def create_project(question: Question) -> Answer:
    """`POST /1.0/projects`."""
    question.require_unrestricted()
    body = _PROJECT_POST.read(question.body)
    name = body.text("name")
    check_plain_name("Project", name)
    check_project_config(body.text_map("config"))
    if name in question.database.projects:
        problem = 'Failed adding database record: This "projects" entry already exists'
        raise LXDError(409, f'Failed creating project "{name}": {problem}')
    question.database.add_project(name, body.text_map("config"), body.text("description"), question.cause)
    return created(f"/1.0/projects/{name}")


def show_project(question: Question) -> Answer:
    """`GET /1.0/projects/NAME`."""
    return sync(_show_project(question.database, _project(question)))


def delete_project(question: Question) -> Answer:
    """`DELETE /1.0/projects/NAME`, which must be empty."""
    question.require_unrestricted()
    if question.names["name"] == "default":
        raise LXDError(403, "The 'default' project cannot be deleted")
    project = _project(question)
    if _contents(question.database, project):
        raise LXDError(500, "Only empty projects can be removed")
    question.database.remove_project(project.name, question.cause)
    return done()
