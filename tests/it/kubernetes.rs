//! The files of `config/kubernetes`: against the schemas of Kubernetes' own API, and against what they promise. Both need Python 3 and,
//! once, the package index; without them the tests say so on stderr and pass, unless `IOLAUS_REQUIRE_KUBERNETES=1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iolaus::config::Config;
use serde_json::{Value, json};

use crate::support::python::{self, quiet, run};
use crate::support::skip::{Need, skip};

/// Brings the schemas, without a network.
const VALIDATOR: &str = "1.37.0";
/// The oldest version of Kubernetes that is promised, and the newest that there are schemas of.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];
/// The user of the image.
const USER: u64 = 10001;
/// Where a worker answers.
const PORT: u64 = 9464;

#[test]
fn every_file_is_valid_by_the_schemas_of_kubernetes_and_a_misspelt_one_is_not() {
    let Some(python) = with_validator() else { return };
    for version in VERSIONS {
        for file in files() {
            let said = validate(&python, version, &file).unwrap();
            let passed = said.lines().filter(|line| line.contains("passed for resource")).count();
            // A kind without a schema is merely warned of.
            assert_eq!(passed, documents(&python, &file).len(), "{}: {said}", file.display());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(&files()[0]).unwrap();
    for (right, wrong) in
        [("readOnlyRootFilesystem:", "readonlyRootFilesystem:"), ("replicas: 2", "replicas: two"), ("\nkind: D", "\nkind: d")]
    {
        assert!(text.contains(right), "{right}");
        let file = directory.path().join("wrong.yaml");
        std::fs::write(&file, text.replace(right, wrong)).unwrap();
        assert!(validate(&python, VERSIONS[1], &file).is_err(), "{wrong}");
    }
}

#[test]
fn both_forms_are_confined_probed_and_given_time_to_drain_and_only_the_embedded_one_has_a_volume() {
    let Some(python) = with_validator() else { return };
    let forms: BTreeMap<String, Vec<Value>> =
        files().iter().map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), documents(&python, file))).collect();
    assert_eq!(forms.keys().collect::<Vec<_>>(), ["cluster", "embedded"]);
    for (form, documents) in &forms {
        let workload = workload(documents);
        assert_eq!(broken(form, workload), [""; 0], "{form}");
        // Each promise, broken by itself, is missed.
        for (place, value) in breaches(form) {
            let mut other = workload.clone();
            *other.pointer_mut(place).unwrap_or_else(|| panic!("{form} has no {place}")) = value;
            assert!(!broken(form, &other).is_empty(), "nobody misses {place} of {form}");
        }
    }
}

#[test]
fn a_network_policy_lets_in_probes_alone_and_out_to_names_the_tenant_and_the_cluster() {
    let Some(python) = with_validator() else { return };
    for (file, out) in files().iter().zip([&[53, 53, 443, 7233][..], &[53, 53, 443]]) {
        let documents = documents(&python, file);
        let policy = documents.iter().find(|document| document["kind"] == "NetworkPolicy").expect("there is one");
        let spec = &policy["spec"];
        assert_eq!(spec["podSelector"], workload(&documents)["spec"]["selector"], "{}", file.display());
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(spec["ingress"], json!([{"ports": [{"protocol": "TCP", "port": "http"}]}]));
        let ports = list(&spec["egress"]).iter().flat_map(|rule| list(&rule["ports"])).map(|port| port["port"].as_u64());
        assert_eq!(ports.collect::<Option<Vec<_>>>().as_deref(), Some(out), "{}", file.display());
    }
}

/// What a workload does not keep of its form's promises.
fn broken(form: &str, workload: &Value) -> Vec<&'static str> {
    let template = &workload["spec"]["template"];
    let pod = &template["spec"];
    let container = &pod["containers"][0];
    let (outer, inner) = (&pod["securityContext"], &container["securityContext"]);
    let annotation = |name: &str| &template["metadata"]["annotations"][format!("prometheus.io/{name}")];
    let (environment, config) = (variables(container), config(container));
    let variable = |name: &str| environment.get(name).copied().unwrap_or_default();
    let mounts = list(&container["volumeMounts"]);
    let claims = list(&workload["spec"]["volumeClaimTemplates"]);
    let embedded = form == "embedded";
    let promises = [
        ("one container", list(&pod["containers"]).len() == 1 && pod["initContainers"].is_null()),
        ("no root", outer["runAsNonRoot"] == true && outer["runAsUser"] == USER && outer["runAsGroup"] == USER),
        ("no root after all", inner["runAsUser"].is_null() && inner["runAsNonRoot"].is_null() && inner["privileged"].is_null()),
        ("seccomp", outer["seccompProfile"]["type"] == "RuntimeDefault"),
        ("a read-only root", inner["readOnlyRootFilesystem"] == true),
        ("no escalation", inner["allowPrivilegeEscalation"] == false),
        ("no capabilities", inner["capabilities"] == json!({"drop": ["ALL"]})),
        ("no token of the cluster", pod["automountServiceAccountToken"] == false && pod["enableServiceLinks"] == false),
        ("startup", probes(container, "startupProbe", "/livez")),
        ("liveness", probes(container, "livenessProbe", "/livez")),
        ("readiness", probes(container, "readinessProbe", "/readyz")),
        ("a configuration that is accepted", config.is_some()),
        ("the port", variable("IOLAUS_HTTP__LISTEN") == format!("0.0.0.0:{PORT}")),
        ("scraped", annotation("scrape") == "true" && annotation("port") == &PORT.to_string() && annotation("path") == "/metrics"),
        (
            "time to drain",
            config.as_ref().is_some_and(|config| pod["terminationGracePeriodSeconds"].as_u64() > Some(longest_drain(config))),
        ),
        (
            "resources",
            container["resources"]["requests"]["cpu"].is_string() && container["resources"]["limits"]["memory"].is_string(),
        ),
        ("the secret is a file", secret_is_a_file(pod, variable("IOLAUS_TENANTS__DEFAULT__API_KEY_FILE"))),
        ("no secret is a value", no_secret_is_a_value(container)),
        ("the host", variable("IOLAUS_HOST__KIND") == if embedded { "" } else { "temporal" }),
        ("how many", workload["spec"]["replicas"] == if embedded { 1 } else { 2 }),
        ("the kind", workload["kind"] == if embedded { "StatefulSet" } else { "Deployment" }),
        (
            "the volume",
            if embedded {
                has_the_volume(claims, mounts, variable("IOLAUS_DATABASE__PATH"))
            } else {
                claims.is_empty() && has_no_volume(pod, mounts)
            },
        ),
    ];
    promises.into_iter().filter(|(_, kept)| !kept).map(|(promise, _)| promise).collect()
}

/// A value that breaks a promise, and where.
fn breaches(form: &str) -> Vec<(&'static str, Value)> {
    let mut breaches = vec![
        ("/spec/template/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/template/spec/securityContext/runAsUser", json!(0)),
        ("/spec/template/spec/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(false)),
        ("/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/template/spec/containers/0/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})),
        ("/spec/template/spec/automountServiceAccountToken", json!(true)),
        ("/spec/template/spec/containers/0/startupProbe/httpGet/path", json!("/")),
        ("/spec/template/spec/containers/0/livenessProbe/httpGet/path", json!("/readyz")),
        ("/spec/template/spec/containers/0/readinessProbe/httpGet/path", json!("/livez")),
        ("/spec/template/spec/containers/0/readinessProbe/httpGet/port", json!("metrics")),
        ("/spec/template/spec/containers/0/ports/0/containerPort", json!(8080)),
        ("/spec/template/metadata/annotations/prometheus.io~1port", json!("8080")),
        ("/spec/template/spec/terminationGracePeriodSeconds", json!(40)),
        ("/spec/template/spec/containers/0/resources/limits", json!({})),
        ("/spec/template/spec/volumes/0", json!({"name": "secrets", "emptyDir": {}})),
        ("/spec/template/spec/containers/0/env/0", json!({"name": "ATLAN_API_KEY", "value": "in the open"})),
        (
            "/spec/template/spec/containers/0/env/0",
            json!({"name": "ATLAN_API_KEY", "valueFrom": {"secretKeyRef": {"name": "iolaus"}}}),
        ),
        ("/spec/template/spec/containers/0/env/0/name", json!("IOLAUS_NO_SUCH_KEY")),
        ("/spec/replicas", json!(3)),
        ("/kind", json!("DaemonSet")),
    ];
    if form == "embedded" {
        breaches.push(("/spec/volumeClaimTemplates/0/spec/accessModes", json!(["ReadWriteMany"])));
        breaches.push(("/spec/template/spec/containers/0/volumeMounts/0/mountPath", json!("/tmp")));
    } else {
        let two = json!([{"name": "secrets", "secret": {"secretName": "iolaus"}}, {"name": "state", "persistentVolumeClaim": {}}]);
        breaches.push(("/spec/template/spec/volumes", two));
        breaches.push(("/spec/template/spec/containers/0/env/0/value", json!("embedded")));
    }
    breaches
}

/// The configuration that the pod's variables make, if it is accepted. Builds without the cluster do not know its host.
fn config(container: &Value) -> Option<Config> {
    let known = |name: &str| cfg!(feature = "temporal") || name != "IOLAUS_HOST__KIND";
    let environment = variables(container).into_iter().chain([("HOME", "/nowhere")]).filter(|(name, _)| known(name));
    Config::load(None, &environment.map(|(name, value)| (name.into(), value.into())).collect()).ok()
}

/// With the 5 s in which a worker of a cluster makes its last calls.
fn longest_drain(config: &Config) -> u64 {
    (config.worker.drain_deadline + config.worker.cancel_grace + Duration::from_secs(5)).as_secs()
}

fn probes(container: &Value, probe: &str, path: &str) -> bool {
    let get = &container[probe]["httpGet"];
    // A port is a number, or the name of one.
    let named = list(&container["ports"]).iter().find(|port| port["name"] == get["port"]).map(|port| &port["containerPort"]);
    get["path"] == path && named.unwrap_or(&get["port"]) == PORT && container[probe]["timeoutSeconds"].as_u64() > Some(2)
}

/// The file is in a mount, and the mount is of a secret that nobody else may read.
fn secret_is_a_file(pod: &Value, file: &str) -> bool {
    let mounts = list(&pod["containers"][0]["volumeMounts"]);
    let mount = mounts
        .iter()
        .find(|mount| Some(mount["mountPath"].as_str().unwrap_or_default()) == Path::new(file).parent().and_then(Path::to_str));
    let volume = mount.and_then(|mount| list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]));
    volume.is_some_and(|volume| volume["secret"]["secretName"].is_string() && volume["secret"]["defaultMode"] == 0o440)
}

fn no_secret_is_a_value(container: &Value) -> bool {
    let is_secret = |name: &str| ["KEY", "SECRET", "TOKEN", "PASSWORD"].iter().any(|end| name.ends_with(end));
    container["envFrom"].is_null()
        && list(&container["env"])
            .iter()
            .all(|entry| entry["valueFrom"].is_null() && !is_secret(entry["name"].as_str().unwrap_or_default()))
}

/// The queue is in a directory of its own on a claim that one machine at a time may have: the volume's root is writable by a group.
fn has_the_volume(claims: &[Value], mounts: &[Value], database: &str) -> bool {
    let state = mounts.iter().find(|mount| mount["name"] == claims[0]["metadata"]["name"]);
    let place = state.and_then(|mount| mount["mountPath"].as_str()).unwrap_or_default();
    claims.len() == 1
        && claims[0]["spec"]["accessModes"] == json!(["ReadWriteOnce"])
        && database == format!("{place}/queue/iolaus.db")
}

/// None but that of the secret.
fn has_no_volume(pod: &Value, mounts: &[Value]) -> bool {
    mounts.iter().all(|mount| mount["readOnly"] == true) && list(&pod["volumes"]).iter().all(|volume| volume["secret"].is_object())
}

fn variables(container: &Value) -> BTreeMap<&str, &str> {
    list(&container["env"]).iter().filter_map(|entry| Some((entry["name"].as_str()?, entry["value"].as_str()?))).collect()
}

/// The document that makes pods.
fn workload(documents: &[Value]) -> &Value {
    let mut workloads = documents.iter().filter(|document| document["spec"]["template"].is_object());
    let workload = workloads.next().expect("one makes pods");
    assert!(workloads.next().is_none(), "and only one");
    workload
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A file's documents.
fn documents(python: &Path, file: &Path) -> Vec<Value> {
    let script =
        "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1], encoding='utf-8')) if d]))";
    serde_json::from_str(&run(quiet(python).args(["-c", script]).arg(file)).unwrap()).unwrap()
}

fn validate(python: &Path, version: &str, file: &Path) -> Result<String, String> {
    run(quiet(python).args(["-m", "kubernetes_validate", "--strict", "--kubernetes-version", version]).arg(file))
}

/// A Python with the schemas. None, said aloud, where there is none.
fn with_validator() -> Option<PathBuf> {
    let package = format!("kubernetes-validate=={VALIDATOR}");
    match python::with(&format!("kubernetes-validate-{VALIDATOR}"), &[&package]) {
        Ok(python) => Some(python),
        Err(why) => {
            skip(Need::Kubernetes, &format!("no {package}: {why}"));
            None
        }
    }
}
