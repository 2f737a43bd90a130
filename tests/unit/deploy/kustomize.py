"""Renders an overlay: with kubectl where there is one, else with the few features of kustomize that our files use."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Manifest = dict[str, Any]

_KNOWN = {
    "apiVersion",
    "kind",
    "components",
    "configMapGenerator",
    "images",
    "labels",
    "namespace",
    "patches",
    "resources",
}
_HASH = re.compile(r"(wine-api-settings)-[a-z0-9]{10}\b")


def render(overlay: Path) -> list[Manifest]:
    """Return the objects of *overlay*. Names of config maps come without their hash."""
    if shutil.which("kubectl"):
        return render_with_kubectl(overlay)
    return render_without_kubectl(overlay)


def render_with_kubectl(overlay: Path) -> list[Manifest]:
    rendered = subprocess.run(["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(_HASH.sub(r"\1", rendered)))


def render_without_kubectl(folder: Path) -> list[Manifest]:
    return _build(folder, [])


def _build(folder: Path, objects: list[Manifest]) -> list[Manifest]:
    """Add what *folder* has to *objects*, and change them as it says, in kustomize's order."""
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(rules) <= _KNOWN, f"{folder} uses a feature of kustomize that this does not know: only kubectl can"
    for resource in rules.get("resources", []):
        path = folder / resource
        objects += _build(path, []) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for component in rules.get("components", []):
        objects = _build(folder / component, objects)
    for generator in rules.get("configMapGenerator", []):
        _generate(folder, generator, objects)
    objects = [_patched(each, rules.get("patches", [])) for each in objects]
    for each in objects:
        _transform(each, rules)
    return objects


def _generate(folder: Path, generator: Manifest, objects: list[Manifest]) -> None:
    files = [(folder / name).read_text() for name in generator.get("envs", [])]
    lines = [line for text in files for line in text.splitlines() if line and not line.startswith("#")]
    data = dict(line.split("=", 1) for line in lines + generator.get("literals", []))
    if generator.get("behavior") != "merge":
        metadata = {"name": generator["name"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        return
    (found,) = [each for each in objects if _is(each, {"kind": "ConfigMap", "name": generator["name"]})]
    found["data"] |= data


def _patched(manifest: Manifest, patches: list[Manifest]) -> Manifest:
    for patch in patches:
        if _is(manifest, patch["target"]):
            manifest = jsonpatch.apply_patch(manifest, yaml.safe_load(patch["patch"]))
    return copy.deepcopy(manifest)


def _is(manifest: Manifest, target: Manifest) -> bool:
    return (
        manifest["kind"] == target["kind"]
        and target.get("name", manifest["metadata"]["name"]) == (manifest["metadata"]["name"])
    )


def _transform(manifest: Manifest, rules: Manifest) -> None:
    if "namespace" in rules and manifest["kind"] != "Namespace":
        manifest["metadata"]["namespace"] = rules["namespace"]
    for label in rules.get("labels", []):
        manifest["metadata"].setdefault("labels", {}).update(label["pairs"])
    if manifest["kind"] != "Deployment":
        return
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        name, _, tag = container["image"].rpartition(":")
        for image in rules.get("images", []):
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
