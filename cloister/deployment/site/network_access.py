"""Network access of a site's processes: the SuperNode has one connection, the agent none."""

from __future__ import annotations

from cloister.client.site_file import SiteFile
from cloister.deployment.confinement import leave_the_network


def needs_hub(file: SiteFile) -> bool:
    """Whether `site.model` names a base on the hub instead of a local folder or file.

    Without `site.model` a study's base is looked up on this machine and never downloaded.
    """
    model = file.site.model
    return model is not None and not file.place(model).exists()


def in_words(file: SiteFile) -> str:
    """Returns a sentence on the network access that the agent will have."""
    if needs_hub(file):
        return (
            f"the agent keeps its network access, since site.model = {file.site.model!r} may be "
            "fetched from the hub; set it to a folder to remove the access"
        )
    return "the agent, which reads the records, has no network"


def leave(file: SiteFile) -> str:
    """Removes this process's network access if its base is local; describes the result."""
    if needs_hub(file):
        return in_words(file)
    if leave_the_network():
        return "this process has no network access until it ends"
    return (
        "this system cannot filter system calls, so this process's connections are not restricted"
    )
