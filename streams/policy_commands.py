"""`pricetide policy check|apply|show|history|rollback|recall|shadow`: what prices are chosen by, as operators change it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from contracts.policies import Policy
from contracts.policy_files import read_publishable
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.policy_changes import Change

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE.toml")


@click.group()
def policy() -> None:
    """See and change what prices are chosen by."""


@policy.command()
@_file
@click.option("--model", type=click.Path(path_type=Path), help="Artifact that the policy should have been made for.")
def check(file: Path, model: Path | None) -> None:
    """Say whether FILE.toml is a policy that workers may be given, and what is wrong if it is not. Asks no broker."""
    draft = read_publishable(file)
    click.echo(f"{file} is a policy: {draft.name}, {_kind(draft)}")
    if draft.fallback is not None:
        click.echo(f"Whether its fallback {draft.fallback} is published, `pricetide policy apply` will see.")
    _say_model(draft, model)
    _say_beginning(draft)


@policy.command()
@_file
@click.option("--no-activate", is_flag=True, help="Publish only; what sets prices stays.")
@with_settings
def apply(settings: Settings, file: Path, no_activate: bool) -> None:
    """Publish FILE.toml as the next version of its name and make it current; workers follow with their next batch."""
    from streams.policy_changes import apply_policy

    draft = read_publishable(file)
    _say_model(draft, settings.encoder.model)
    _say_dwell(draft, settings.outcome_window_ms)
    change = apply_policy(settings, draft, activate=not no_activate)
    if change.published_at is None:
        click.echo(f"{change.policy.version} says the same and is the newest of its name: nothing was published again.")
    else:
        click.echo(f"Published {change.policy.version} at offset {change.published_at}.")
        _say_beginning(draft)
    _say_change(change)
    if no_activate and change.policy != change.before:
        click.echo("It sets no prices yet: apply the file again without --no-activate.")


@policy.command()
@click.argument("version", required=False, metavar="[NAME@N]")
@with_settings
def rollback(settings: Settings, version: str | None) -> None:
    """Make an earlier version current again: NAME@N, `builtin`, or the one that was current before."""
    from streams.policy_changes import rollback as roll_back

    _say_change(roll_back(settings, version))


@policy.command()
@click.argument("version", metavar="NAME@N")
@click.argument("learned", type=click.IntRange(min=1), metavar="VERSION")
@with_settings
def recall(settings: Settings, version: str, learned: int) -> None:
    """Price by an earlier VERSION of what NAME@N has learned, until its learner publishes the next one: stop that first."""
    from streams.policy_changes import recall as recall_version

    offset = recall_version(settings, version, learned)
    click.echo(f"{version} prices by version {learned} of what it has learned (offset {offset}); its learner's next version "
               "takes over.")  # fmt: skip


@policy.command()
@click.argument("version", required=False, metavar="[NAME@N]")
@click.option("--off", is_flag=True, help="No policy decides as a shadow any more.")
@with_settings
def shadow(settings: Settings, version: str | None, off: bool) -> None:
    """Have NAME@N decide every draw once more, for nobody: its decisions go to a topic of their own."""
    from streams.policy_changes import set_shadow

    if off is (version is not None):
        raise click.UsageError("name a version, or say --off")
    policy, offset = set_shadow(settings, version)
    held = "already: nothing changes" if offset is None else f"(offset {offset}); workers follow with their next batch"
    if policy is None:
        click.echo(f"No policy is a shadow {held}.")
    else:
        click.echo(f"{policy.version} is the shadow {held}. Its decisions go to {settings.topics.shadow_decisions}.")


@policy.command()
@click.argument("version", required=False, metavar="[NAME@N]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--toml", "as_toml", is_flag=True, help="Print it as a file for `pricetide policy apply`.")
@with_settings
def show(settings: Settings, version: str | None, as_json: bool, as_toml: bool) -> None:
    """Print the policy in force with kill switch and fallback; or NAME@N, the newest of NAME, or `builtin`."""
    from streams import policy_pages as pages
    from streams.console import wide_console
    from streams.policy_log import read_policy_log

    if as_json and as_toml:
        raise click.UsageError("say --json or --toml, not both")
    log = read_policy_log(settings)
    shown = log.book.current if version is None else log.policy(version)
    if as_toml:
        click.echo(pages.policy_file(shown), nl=False)
    elif as_json:
        plain = pages.force_json(log) if version is None else pages.policy_json(shown, log)
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
    elif version is None:
        wide_console().print(pages.force_page(log))
    else:
        role = "current" if shown == log.book.current else "not current"
        wide_console().print(pages.policy_table(shown, log, role))


@policy.command()
@click.option("--json", "as_json", is_flag=True, help="Print each record as a line of JSON.")
@click.option("--learned", is_flag=True, help="Also every version of what policies have learned.")
@with_settings
def history(settings: Settings, as_json: bool, learned: bool) -> None:
    """Print every version and every change of the current one and of the kill switch, as far as compaction left them."""
    from streams import policy_pages as pages
    from streams.console import wide_console
    from streams.policy_log import read_policy_log

    log = read_policy_log(settings)
    if as_json:
        for record in pages.history_json(log, learned):
            click.echo(msgspec.json.encode(record))
        return
    if not log.entries:
        click.echo("No policy was ever published: the builtin one sets prices.")
        return
    wide_console().print(pages.history_page(log, learned))


def _kind(draft: Policy) -> str:
    return str(draft.rule.__struct_config__.tag)


def _say_beginning(draft: Policy) -> None:
    """Say what a policy that learns will charge before it has."""
    from pricing.beginnings import beginning_of

    beginning = beginning_of(draft)
    if beginning is not None:
        click.echo(beginning.sentence)


def _say_change(change: Change) -> None:
    """Say what sets prices now, and in what that differs from before."""
    from streams.policy_pages import differences

    version, before = change.policy.version, change.before.version
    if change.policy == change.before:
        click.echo(f"{version} is current already: nothing changes.")
    else:
        if change.current_at is None:
            click.echo(f"{before} stays current. What {version} would change:")
        else:
            click.echo(f"{version} is current instead of {before} (offset {change.current_at}); "
                       "workers follow with their next batch.")  # fmt: skip
        for line in differences(change.before, change.policy) or ["  no field but the version"]:
            click.echo(line)
    if change.kill_switch:
        click.echo("The kill switch is on: everybody pays list price until `pricetide killswitch off`.")


def _say_dwell(draft: Policy, window_ms: int) -> None:
    """Warn of offers that stand when their draws are resolved already; `window_ms` 0: none ever is."""
    if 0 < window_ms < draft.rails.dwell_ms:
        click.echo(f"Warning: its offers stand for {draft.rails.dwell_ms} ms (rails.dwell_ms), longer than semantics."
                   f"outcome_window_ms, {window_ms}: a purchase at a standing offer after that counts as late, and the draw as not "
                   "bought. Learners and evaluations would take the price for worse than it is: shorten the one, or lengthen the "
                   "other.", err=True)  # fmt: skip


def _say_model(draft: Policy, model: Path | None) -> None:
    """Say where a policy that was made for one model will price."""
    if draft.model is None:
        return
    from features.artifact import artifact_digest

    digest = None if model is None else artifact_digest(model)
    if digest is None:
        click.echo(f"It was made for model {draft.model}; without that one, {draft.fallback} prices.")
    elif digest != draft.model:
        click.echo(f"Warning: it was made for model {draft.model}, and {model} is {digest}: where that one is in force, "
                   f"{draft.fallback} prices.", err=True)  # fmt: skip
