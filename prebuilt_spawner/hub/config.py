"""Every setting of the spawner, with its unit, its default's meaning and its price."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from traitlets import Bool, Callable, Dict, Integer, List, TraitError, Unicode, Union, validate
from traitlets.config import LoggingConfigurable

from ..build.sources import SourceBuildLimits, read_limits
from ..environment.policy import read_rules
from ..environment.profiles import read_profiles
from ..environment.reference import is_registry, parse_reference
from ..environment.urls import UNREADABLE, is_readable
from ..errors import PrebuiltError
from .container import SCRATCH, scratch_flaw
from .hub_wide import refuse_hub_wide


class PrebuiltConfig(LoggingConfigurable):
    """The traits, apart from what is done with them."""

    allow_custom_packages = Union(
        [Bool(), Callable()],
        default_value=False,
        help="""
        Whether users may name packages of their own.

        True, False, or a callable that gets the spawner and returns one of them (it may be async); `spawner.user` is
        the user whose server starts, whoever asks for it.

        Default: False, users choose among profiles. True lets each user run any code that a package index offers,
        in their own container, which is what a notebook lets them do anyway.
        """,
    ).tag(config=True)

    allowed_packages = Union(
        [List(Unicode()), Dict(), Callable()],
        help="""
        The only packages that users may ask for: names, globs (`acme-*`), or either with versions (`pandas>=2`).

        A list, or a dict from each of these to a reason that users are shown ("" for none), or a callable that gets the
        spawner and returns one of these (it may be async): `spawner.user` is the user whose server starts, whoever asks
        for it, and `spawner.user.groups` are the groups.

        Default: empty, any package. What those packages depend on comes along unless it is denied, or such a list would
        have to name every dependency; the packages of profiles are not checked. A short list is safe and makes every
        other wish a case for the administrator.
        """,
    ).tag(config=True)

    denied_packages = Union(
        [List(Unicode()), Dict(), Callable()],
        help="""
        Packages that users may not get, in the form of `allowed_packages`; stronger than those.

        A request that names one is refused, and so is one for which a denied package would have to be installed, as a
        dependency of something else: at each start, before anything is downloaded. What a profile installs by itself
        is not checked, nor is what the base image has.

        Default: empty, none. A list with versions (`pillow<10`) refuses what would bring these, instead of looking for
        others: whoever asks has to name other versions.
        """,
    ).tag(config=True)

    max_packages = Integer(
        100,
        min=0,
        help="""
        How many packages a user may ask for at once, not counting what they depend on and a profile's own.

        Default: 100. More make resolving slower.
        """,
    ).tag(config=True)

    max_environment_bytes = Integer(
        10 * 1024**3,
        min=0,
        help="""
        Bytes of the wheels that a request of a user may add to the base, as its index says, dependencies included and
        what a profile installs by itself left out. It is checked before anything is downloaded.

        Default: 10737418240 (10 GiB); 0 is no limit. Unpacked, wheels have about three times as much. Where an
        index does not say sizes, the download stops at this limit, and what a profile needs of such wheels counts.
        """,
    ).tag(config=True)

    max_builds_per_user_per_hour = Integer(
        60,
        min=0,
        help="""
        How many starts of one user may have something resolved or built for them within an hour. Who waits for what is
        being built for somebody else, starts what is ready or a profile as it is, or is refused from memory, is not
        counted, and neither are administrators. The hub's restart forgets the counts.

        Default: 60; 0 is no limit. Fewer keep one user's scripts from taking the builds' turns from others, who wait
        for them in order of arrival.
        """,
    ).tag(config=True)

    profile_list = Union(
        [List(Dict()), Dict(), Callable()],
        help="""
        The environments that users choose from: a list of profiles, a dict of them by slug, or a callable that gets
        the spawner and returns one of these (it may be async).

        A profile is a dict with KubeSpawner's keys `display_name`, `slug`, `description` and `default`, and with
        `packages` (requirements, a list or text with one per line), `lock` (path of a pylock file that the
        administrator keeps), `image` (the base image), `allow_extra_packages` (default: what `allow_custom_packages`
        says) and `spawner_override` (trait values for this start; dicts are merged into what is set, a value of
        None removes a key, callables get the spawner; what is one setting for the whole hub, as `immutable` and
        `repository` are, is refused).

        Default: empty, no profiles. A user who names no profile gets the one with `default`, else the first.
        """,
    ).tag(config=True)

    index_url = Unicode(
        "",
        help="""
        URL of the package index (PEP 503 or 691). It may hold a name and password; they reach neither users nor images.

        Default: empty, uv's own default (its environment variables and configuration count).
        """,
    ).tag(config=True)

    extra_index_urls = List(
        Unicode(),
        help="""
        URLs of further package indexes. They go before `index_url`: the first that has a package is the only one asked
        for it, whatever versions others have. So a private index belongs here, before a public one.

        Default: empty. Each one costs a question for every package.
        """,
    ).tag(config=True)

    allow_source_builds = Bool(
        True,
        help="""
        Whether packages that have no fitting wheel are built from their source, in a container of the base image that
        reaches no network and nothing of the hub, within `source_build_limits`.

        Default: True. False refuses such packages; environments that have them already go on working. It is one setting
        for the whole hub.
        """,
    ).tag(config=True)

    source_build_limits = Dict(
        default_value=asdict(SourceBuildLimits()),
        help="""
        What one build from source may take. `memory_bytes`: its processes and its scratch space together; `disk_bytes`:
        its scratch space, which lies in memory; `processes`: processes and threads at once; `cpus`: so many
        processors; `seconds`: how long it may take; `output_bytes`: what it may print.

        Default: 2 GiB, 1 GiB, 256, 1, 600 and 64 MiB. What is left out keeps its default. As many builds go on at once
        as `max_concurrent_builds` says. It is one setting for the whole hub.
        """,
    ).tag(config=True)

    repository = Unicode(
        "prebuilt-spawner/env",
        help="""
        The name that the images get, without a tag. Everything under it belongs to this spawner: nobody may use it as
        a base image.

        Default: `prebuilt-spawner/env`. Hubs that share an engine and a repository share images too.
        """,
    ).tag(config=True)

    registry = Unicode(
        "",
        help="""
        Host of a registry that engines share, with its port, as `registry.example.org:5000`: images are named
        `<registry>/<repository>:<digest>`. An environment that is there is pulled instead of built, and what is built
        is pushed in the background. Credentials are docker's own (`docker login` as the hub's user); plain HTTP is
        spoken on loopback only.

        Default: empty, none. With one, whoever can write to its repository can put code into sessions, and each new
        environment is looked for there first, for a few seconds at most.
        """,
    ).tag(config=True)

    build_timeout = Integer(
        1800,
        min=0,
        help="""
        Seconds that a start may wait for its environment. JupyterHub's `start_timeout` begins only afterwards.

        Default: 1800 (30 minutes); 0 waits without end. A build that others wait for too goes on for them.
        """,
    ).tag(config=True)

    max_concurrent_builds = Integer(
        2,
        min=1,
        help="""
        How many environments are built at once; further ones wait.

        Default: 2. More finish sooner on many cores, and take processor and disk from the hub and the engine.
        """,
    ).tag(config=True)

    max_queued_builds = Integer(
        50,
        min=0,
        help="""
        How many environments may wait to be built; users who ask for a further one are told to try again later.

        Default: 50. More let more people wait, longer, each with a server that JupyterHub counts as being started: see
        `JupyterHub.concurrent_spawn_limit`, of which at most three quarters may wait for environments.
        """,
    ).tag(config=True)

    failure_ttl = Integer(
        600,
        min=0,
        help="""
        Seconds for which a request that cannot be met (an unknown package, a conflict) is answered from memory.

        Default: 600 (10 minutes); 0 tries every time. A user who asks for the newest versions tries at once. What fails
        for other reasons (the index or the engine is down) is never remembered.
        """,
    ).tag(config=True)

    immutable = Bool(
        True,
        help="""
        Whether the container's root filesystem is read-only, with scratch space in memory (see `scratch`), packages of
        the home switched off, and advice where pip, uv or conda would install into the image.

        Default: True, an environment stays what it is. False lets users change their container; what they change
        outside the home is lost with it. `extra_host_config` and `environment` win over what this sets. It is one
        setting for the whole hub: no profile, group or hook can change it.
        """,
    ).tag(config=True)

    scratch = Dict(
        default_value=SCRATCH,
        help="""
        Where an immutable container has scratch space in memory: bytes by folder, 0 for the engine's own bound, which
        is half of the machine's memory. What lies there counts toward the container's memory limit and is gone when the
        server stops.

        Default: `{"/tmp": 0, "/var/tmp": 0, "/run": 67108864}`. Without a memory limit a user can fill the machine's
        memory from there. Bounds that are too small make programs fail for want of room.
        """,
    ).tag(config=True)

    db_url = Unicode(
        "sqlite:///prebuilt_spawner.sqlite",
        help="""
        URL, as SQLAlchemy reads it, of the database that remembers which packages answered which request.

        Default: an SQLite file in the hub's working folder. Back it up like the hub's own database: without it the
        same request may get newer packages. Several hubs need a database server.
        """,
    ).tag(config=True)

    cache_dir = Unicode(
        "prebuilt_spawner_cache",
        help="""
        Folder for wheels and what is made from them, on a disk of the hub.

        Default: `prebuilt_spawner_cache` in the hub's working folder. It can be deleted while no hub runs, and then
        everything is downloaded anew.
        """,
    ).tag(config=True)

    max_cache_bytes = Integer(
        20 * 1024**3,
        min=0,
        help="""
        Bytes that `cache_dir` may take. What was used longest ago is removed after a build; what a build may be using
        stays, so for a while it can be more.

        Default: 21474836480 (20 GiB); 0 is no limit. A smaller cache is downloaded and prepared anew more often.
        """,
    ).tag(config=True)

    min_free_bytes = Integer(
        5 * 1024**3,
        min=0,
        help="""
        Bytes that must be free on the disk of `cache_dir`, and on that of the engine's data where it is on the hub's
        machine. With less, nothing new is built; servers whose environment is ready start as ever.

        Default: 5368709120 (5 GiB); 0 builds until a disk is full. Large environments need more room than that.
        """,
    ).tag(config=True)

    @validate("profile_list")
    def _validate_profile_list(self, proposal: Any) -> Any:
        # Read here, so that a mistake shows when the configuration is read and not at somebody's start.
        if not callable(proposal["value"]):
            try:
                refuse_hub_wide(read_profiles(proposal["value"]))
            except ValueError as error:
                raise TraitError(f"profile_list: {error}") from error
        return proposal["value"]

    @validate("scratch")
    def _validate_scratch(self, proposal: Any) -> Any:
        flaw = scratch_flaw(proposal["value"])
        if flaw:
            raise TraitError(f"scratch: {flaw}")
        return proposal["value"]

    @validate("source_build_limits")
    def _validate_source_build_limits(self, proposal: Any) -> Any:
        try:
            read_limits(proposal["value"])
        except ValueError as error:
            raise TraitError(f"source_build_limits: {error}") from error
        return proposal["value"]

    @validate("allowed_packages", "denied_packages")
    def _validate_packages(self, proposal: Any) -> Any:
        if not callable(proposal["value"]):
            try:
                read_rules(proposal["value"], source=proposal["trait"].name)
            except ValueError as error:
                raise TraitError(str(error)) from error
        return proposal["value"]

    @validate("index_url", "extra_index_urls")
    def _validate_index_urls(self, proposal: Any) -> Any:
        value = proposal["value"]
        if not all(map(is_readable, [value] if isinstance(value, str) else value)):
            raise TraitError(f"{proposal['trait'].name}: {UNREADABLE}")
        return value

    @validate("registry")
    def _validate_registry(self, proposal: Any) -> Any:
        value = proposal["value"]
        if value and not is_registry(value):
            raise TraitError(
                "registry: a host such as 'registry.example.org' or '127.0.0.1:5000' is needed, in small letters, "
                "without https:// and without a path; Docker Hub is not supported"
            )
        return value

    @validate("repository")
    def _validate_repository(self, proposal: Any) -> Any:
        try:
            reference = parse_reference(proposal["value"])
        except PrebuiltError as error:
            raise TraitError(f"repository: {error}") from error
        if reference.tag or reference.digest:
            raise TraitError("repository: a name without a tag or digest is needed")
        return proposal["value"]
