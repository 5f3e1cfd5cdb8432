"""The manifests in ``deploy/kafka`` are what Strimzi accepts, hold no secret, and say the same as the plain files.

Rules that Strimzi writes in CEL are not checked; none of them concerns a field that is set here.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.plain_kafka import DEPLOY, site_variables

STRIMZI = Path(__file__).parent / "strimzi-1.2.0"
FORBIDDEN = json.loads((STRIMZI / "forbidden.json").read_text())
MANIFESTS = sorted((DEPLOY / "strimzi").glob("*.yaml"))
PLAIN = DEPLOY / "plain"
VARIABLE = re.compile(r"\$\{(\w+)\}")

Manifest = dict[str, Any]


def rendered(path: Path) -> str:
    """The file as ``envsubst`` leaves it; a name that is no variable of ``site.env`` is an error."""
    variables = site_variables()
    return VARIABLE.sub(lambda match: variables[match[1]], path.read_text(encoding="utf-8"))


def manifests(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(rendered(path)))


def manifest(name: str, kind: str) -> Manifest:
    [found] = [each for each in manifests(DEPLOY / "strimzi" / name) if each["kind"] == kind]
    return found


def strict(schema: Any) -> Any:
    """The schema as an API server applies it with strict validation of fields."""
    if not isinstance(schema, dict):
        return schema
    # Alternatives name only the fields that they are about.
    result = {
        key: value if key in {"oneOf", "anyOf", "allOf", "not"} else strict(value) for key, value in schema.items()
    }
    if result.pop("x-kubernetes-int-or-string", False) is True:
        result |= {"type": ["integer", "string"]}
    if isinstance(result.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in result:
        result.setdefault("additionalProperties", False)
    return result


def faults(document: Manifest) -> list[str]:
    schema = strict(json.loads((STRIMZI / f"{document['kind']}.json").read_text()))
    schema["properties"] |= {"apiVersion": {"const": "kafka.strimzi.io/v1"}, "metadata": {"type": "object"}}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def properties(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_strimzi_accepts_the_manifest(path):
    for document in manifests(path):
        assert faults(document) == []


@pytest.mark.parametrize(
    ("name", "kind", "where", "value"),
    [
        ("mirror-maker.yaml", "KafkaMirrorMaker2", ("spec", "mirrors", 0, "topicPattern"), "x"),
        ("mirror-maker.yaml", "KafkaMirrorMaker2", ("spec", "target", "authentication", "type"), "mtls"),
        ("kafka.yaml", "Kafka", ("spec", "kafka", "listeners", 0, "port"), "9093"),
        ("users.yaml", "KafkaUser", ("spec", "authorization", "acls", 0, "operations"), ["Peruse"]),
        ("topics.yaml", "KafkaTopic", ("spec", "partitions"), 0),
    ],
)
def test_a_planted_fault_is_found(name, kind, where, value):
    document = copy.deepcopy(manifests(DEPLOY / "strimzi" / name)[-1])
    assert document["kind"] == kind
    parent = document
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value

    assert len(faults(document)) == 1


def test_no_setting_is_one_that_strimzi_keeps_to_itself():
    kafka = manifest("kafka.yaml", "Kafka")["spec"]["kafka"]
    mirror = manifest("mirror-maker.yaml", "KafkaMirrorMaker2")["spec"]
    settings = {
        "broker": kafka["config"],
        "listener": kafka["listeners"][1]["authentication"]["listenerConfig"],
        "target": mirror["target"]["config"],
        "connector": mirror["mirrors"][0]["sourceConnector"]["config"],
    }
    for kind, config in settings.items():
        kept = FORBIDDEN[kind]
        assert [key for key in config if any(key == one or key.startswith(one) for one in kept)] == []


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.*")), ids=lambda path: path.name)
def test_no_secret_is_in_a_file(path):
    text = path.read_text(encoding="utf-8")

    assert not re.search(r"PRIVATE KEY|password|passphrase|BEGIN CERTIFICATE|ssl\.keystore\.key", text)


def test_the_variables_are_exactly_those_that_the_files_use():
    texts = [path.read_text(encoding="utf-8") for path in (*MANIFESTS, *PLAIN.glob("*.properties"))]
    used = {name for text in texts for name in re.findall(r"\$\{(?:env:)?(\w+)\}", text)}
    script = set(re.findall(r"\$(?:\{)?([A-Z_]+)\b", (PLAIN / "grant.sh").read_text())) - {"KAFKA_ACLS"}

    assert used | script == site_variables().keys()


def test_the_two_mirrors_differ_in_what_copies_are_called_and_in_nothing_else():
    names = ("mirror-maker.yaml", "mirror-maker-prefixed.yaml")
    same, prefixed = (manifest(name, "KafkaMirrorMaker2") for name in names)
    configs = [each["spec"]["mirrors"][0]["sourceConnector"]["config"] for each in (same, prefixed)]

    policies = [config.pop("replication.policy.class").rpartition(".")[2] for config in configs]

    assert policies == ["IdentityReplicationPolicy", "DefaultReplicationPolicy"]
    assert same == prefixed


def test_only_the_sites_topics_are_copied_and_only_one_way():
    plain = properties(PLAIN / "mm2.properties")
    [mirror] = manifest("mirror-maker.yaml", "KafkaMirrorMaker2")["spec"]["mirrors"]

    assert plain["usdf->site.topics"] == "${env:SITE_TOPICS}.*"
    assert plain["site->usdf.enabled"] == "false"
    pattern = re.compile(mirror["topicsPattern"])
    assert pattern.fullmatch("LANCS-raw")
    assert not pattern.fullmatch("RAL-raw")
    assert not pattern.fullmatch("usdf.LANCS-raw")


def test_manifest_and_properties_of_the_mirror_agree():
    plain = properties(PLAIN / "mm2.properties")
    mirror = manifest("mirror-maker.yaml", "KafkaMirrorMaker2")["spec"]
    config = mirror["target"]["config"] | mirror["mirrors"][0]["sourceConnector"]["config"]
    numbers = {"replication.factor", "offset-syncs.topic.replication.factor", "replication.policy.class"}

    for key, value in config.items():
        if key not in numbers:
            assert plain[key] == json.dumps(value).strip('"'), key
    assert mirror["mirrors"][0]["sourceConnector"]["tasksMax"] == int(plain["tasks.max"])
    assert "checkpointConnector" not in mirror["mirrors"][0]
    assert plain["emit.checkpoints.enabled"] == "false"


def test_manifest_and_properties_of_the_broker_agree():
    plain = properties(PLAIN / "broker.properties")
    config = manifest("kafka.yaml", "Kafka")["spec"]["kafka"]["config"]
    variables = site_variables()

    for key, value in config.items():
        written = VARIABLE.sub(lambda match: variables[match[1]], plain[key].replace("${env:", "${"))
        assert written == json.dumps(value).strip('"'), key


@pytest.mark.parametrize(
    ("subject", "principal"),
    [
        ("CN=kafka.lancs.example,L=Physics,OU=Lancaster,O=eScience,C=UK", "kafka.lancs.example"),
        ("CN=kafka.lancs.example,O=Somebody Else,C=UK", None),
        ("CN=x,O=eScience,C=UK,DC=org", None),
        ("OU=Lancaster,O=eScience,C=UK", None),
    ],
)
def test_only_an_escience_certificate_has_a_principal_that_rights_are_given_to(subject, principal):
    listener = manifest("kafka.yaml", "Kafka")["spec"]["kafka"]["listeners"][1]
    written = {
        "": site_variables()["KAFKA_PRINCIPAL_RULES"],
        "CN=": listener["authentication"]["listenerConfig"]["ssl.principal.mapping.rules"],
    }
    for prefix, rules in written.items():
        rule = re.fullmatch(r"RULE:(?P<pattern>.*)/(?P<name>.*\$1)/,DEFAULT", rules)
        assert rule is not None
        match = re.fullmatch(rule["pattern"], subject)

        assert (rule["name"].replace("$1", match[1]) if match else None) == (principal and prefix + principal)


def test_granting_asks_at_which_end():
    done = subprocess.run([PLAIN / "grant.sh"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr.partition(" ")[0]) == (2, "usage:")
