"""The Kubernetes manifests that come with blaster, with the image that the user names."""

from __future__ import annotations

import re
from importlib import resources

from blaster.errors import UsageError
from blaster.units import quoted

MOST_HOSTS = 1000
IMAGE, HOSTS = "REPLACE-WITH-YOUR-IMAGE", "replicas: 4"


def manifest(image: str, hosts: int) -> str:
    """A DaskCluster for Dask's operator, whose workers are ``hosts`` pods of ``image``, each on a
    node of its own. UsageError for what is no image's name or too many."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", image):
        raise UsageError(f"--image {quoted(image)}: must be the name of a container image")
    if not 1 <= hosts <= MOST_HOSTS:
        raise UsageError(f"--hosts {hosts}: must be from 1 to {MOST_HOSTS:,}")
    text = (resources.files("blaster.cluster") / "kubernetes" / "cluster.yaml").read_text("utf-8")
    return text.replace(IMAGE, image).replace(HOSTS, f"replicas: {hosts}")
