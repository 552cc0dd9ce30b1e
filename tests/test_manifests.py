"""The Kubernetes manifests are what Dask's operator and Kubernetes take, by their own schemas."""

from importlib import metadata
from typing import Any

import jsonschema
import pytest
import yaml
from support.cli import blaster

from blaster.cluster.manifests import manifest


def definition() -> dict[str, Any]:
    """The schema of a DaskCluster, from the operator's own Helm chart."""
    files = metadata.files("dask-kubernetes")
    assert files is not None
    (file,) = [f for f in files if f.match("dask-kubernetes-operator/crds/daskcluster.yaml")]
    crd = yaml.safe_load(file.read_text())
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    schema["properties"].update(apiVersion={"type": "string"}, kind={"type": "string"})
    schema["properties"]["metadata"] = {"type": "object", "properties": {"name": {}}}
    return strict(schema)


def strict(schema: Any) -> Any:
    """The schema with unknown keys refused, where Kubernetes would drop them without a word."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    return made


def test_the_manifest_is_a_dask_cluster() -> None:
    """It is valid by the published schema, and has the image and the number of hosts."""
    ran = blaster(
        "cluster", "manifest", "--image", "registry:5000/blaster@sha256:ab", "--hosts", "7"
    )
    assert ran.returncode == 0
    made = yaml.safe_load(ran.stdout)
    jsonschema.validate(made, definition())
    assert made["spec"]["worker"]["replicas"] == 7
    for part in ("worker", "scheduler"):
        (container,) = made["spec"][part]["spec"]["containers"]
        assert container["image"] == "registry:5000/blaster@sha256:ab"


def test_the_schema_refuses_what_is_wrong() -> None:
    """A misspelt key and a wrong type are seen, so that the test above can fail."""
    for wrong in ("replicaz: 3", "replicas: many"):
        made = yaml.safe_load(manifest("x", 4).replace("replicas: 4", wrong))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(made, definition())


@pytest.mark.parametrize("options", [("--image", "a b"), ("--image", "x", "--hosts", "0")])
def test_what_cannot_be_a_manifest(options: tuple[str, ...]) -> None:
    """One line, exit status 2."""
    ran = blaster("cluster", "manifest", *options)
    assert ran.returncode == 2 and len(ran.stderr.strip().splitlines()) == 1
