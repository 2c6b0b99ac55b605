//! Each type against the table of what the API takes and gives.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::*;

struct Field {
    shape: &'static str,
    required: bool,
}

/// By method and path, then by field.
pub(in crate::host::vmm::firecracker) struct Table(
    BTreeMap<(&'static str, &'static str), BTreeMap<&'static str, Field>>,
);

impl Table {
    pub(in crate::host::vmm::firecracker) fn read() -> Self {
        let text = include_str!("../../../../tests/fixtures/firecracker-api.txt");
        let mut table = BTreeMap::<_, BTreeMap<_, _>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let [method, path, field, shape, required] = words[..] else { panic!("{line}") };
            let fields = table.entry((method, path)).or_default();
            if field != "-" {
                fields.insert(field, Field { shape, required: required == "required" });
            }
        }
        Self(table)
    }

    /// That these are fields that the API knows, of the shape it knows, and none is missing.
    pub(in crate::host::vmm::firecracker) fn check(&self, method: &str, path: &str, body: &Value) {
        // `/drives/d0` is one of `/drives/{drive_id}`.
        let same = |known: &str| match known.split_once('{') {
            None => known == path,
            Some((stem, _)) => path.strip_prefix(stem).is_some_and(|id| !id.contains('/')),
        };
        self.check_part(method, &same, body);
    }

    fn check_part(&self, method: &str, same: &dyn Fn(&str) -> bool, body: &Value) {
        let row = self.0.iter().find(|((m, p), _)| *m == method && same(p));
        let ((_, path), fields) = row.unwrap_or_else(|| panic!("nothing of the kind: {method}"));
        let body = body.as_object().unwrap();
        for (name, value) in body {
            let field = fields.get(name.as_str());
            let shape = field.unwrap_or_else(|| panic!("{method} {path}: no {name}")).shape;
            let fits = match shape {
                "string" => value.is_string(),
                "int" => value.is_u64(),
                "bool" => value.is_boolean(),
                part if part.starts_with(['{', '[']) => {
                    let name = part.trim_matches(['{', '}', '[', ']']);
                    let list = part.starts_with('[').then(|| value.as_array().unwrap().clone());
                    for value in list.unwrap_or_else(|| vec![value.clone()]) {
                        self.check_part("part", &|known| known == name, &value);
                    }
                    true
                }
                words => words.split('|').any(|word| Some(word) == value.as_str()),
            };
            assert!(fits, "{method} {path}: {name} is no {shape}: {value}");
        }
        for (name, field) in fields {
            assert!(!field.required || body.contains_key(*name), "{method} {path}: {name} missing");
        }
    }

    /// Answers that the API may give: each word of a choice once, all fields there.
    fn answers(&self, path: &str) -> Vec<Value> {
        let fields = &self.0[&("answer", path)];
        let sample = |shape: &str, turn: usize| match shape {
            "string" => json!("text"),
            "int" => json!(1),
            "bool" => json!(true),
            words => {
                let words: Vec<_> = words.split('|').collect();
                json!(words[turn % words.len()].replace('_', " "))
            }
        };
        let turns = fields.values().map(|field| field.shape.split('|').count()).max().unwrap();
        let one = |turn| {
            let field =
                |(name, field): (&&str, &Field)| ((*name).to_owned(), sample(field.shape, turn));
            let mut answer: Map<_, _> = fields.iter().map(field).collect();
            // Newer versions may say more.
            answer.insert("added_later".to_owned(), json!({}));
            Value::Object(answer)
        };
        (0..turns).map(one).collect()
    }
}

fn text() -> String {
    "text".to_owned()
}

#[test]
fn what_is_sent_has_the_names_and_shapes_of_the_api() {
    let table = Table::read();
    let check = |method, path, body: Result<Value, serde_json::Error>| {
        table.check(method, path, &body.unwrap());
    };
    let boot = BootSource { kernel_image_path: text(), initrd_path: text(), boot_args: text() };
    check("PUT", "/boot-source", serde_json::to_value(boot));
    let machine = MachineConfig { vcpu_count: 1, mem_size_mib: 2 };
    check("PUT", "/machine-config", serde_json::to_value(machine));
    for cache_type in [CacheType::Unsafe, CacheType::Writeback] {
        for io_engine in [IoEngine::Sync, IoEngine::Async] {
            let drive = Drive {
                drive_id: text(),
                path_on_host: text(),
                is_root_device: false,
                is_read_only: true,
                cache_type,
                io_engine,
            };
            check("PUT", "/drives/d0", serde_json::to_value(drive));
        }
    }
    let net = NetworkInterface { iface_id: text(), host_dev_name: text(), guest_mac: text() };
    check("PUT", "/network-interfaces/net0", serde_json::to_value(net));
    check("PUT", "/vsock", serde_json::to_value(Vsock { guest_cid: 3, uds_path: text() }));
    check("PUT", "/entropy", serde_json::to_value(Entropy {}));
    for action_type in
        [ActionType::InstanceStart, ActionType::FlushMetrics, ActionType::SendCtrlAltDel]
    {
        check("PUT", "/actions", serde_json::to_value(Action { action_type }));
    }
    for state in [VmChangeTo::Paused, VmChangeTo::Resumed] {
        check("PATCH", "/vm", serde_json::to_value(VmChange { state }));
    }
    let create = SnapshotCreate {
        snapshot_type: SnapshotType::Full,
        snapshot_path: text(),
        mem_file_path: text(),
    };
    check("PUT", "/snapshot/create", serde_json::to_value(create));
    let backend_type = BackendType::File;
    let load = SnapshotLoad {
        snapshot_path: text(),
        mem_backend: MemoryBackend { backend_type, backend_path: text() },
        resume_vm: false,
        network_overrides: vec![NetworkOverride { iface_id: text(), host_dev_name: text() }],
    };
    check("PUT", "/snapshot/load", serde_json::to_value(load));
}

#[test]
#[should_panic(expected = "part backend: no colour")]
fn a_field_of_a_part_that_the_api_lacks_is_seen() {
    let backend = json!({ "backend_type": "File", "backend_path": "p", "colour": 1 });
    let load = json!({ "snapshot_path": "p", "mem_backend": backend });
    Table::read().check("PUT", "/snapshot/load", &load);
}

#[test]
fn every_answer_of_the_api_is_understood() {
    let table = Table::read();
    let states: Vec<_> = table
        .answers("/")
        .into_iter()
        .map(|answer| serde_json::from_value::<InstanceInfo>(answer).unwrap().state)
        .collect();
    use InstanceState as S;
    assert_eq!(states, [S::NotStarted, S::Running, S::Paused]);
    for answer in table.answers("fault") {
        assert_eq!(serde_json::from_value::<Fault>(answer).unwrap().fault_message, "text");
    }
}

#[test]
#[should_panic(expected = "no colour")]
fn a_field_that_the_api_lacks_is_seen() {
    Table::read().check("PUT", "/entropy", &json!({ "colour": 1 }));
}

#[test]
#[should_panic(expected = "uds_path missing")]
fn a_field_that_is_missing_is_seen() {
    Table::read().check("PUT", "/vsock", &json!({ "guest_cid": 3 }));
}
