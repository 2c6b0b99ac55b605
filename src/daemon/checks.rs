//! The doctor: read-only, one line per check, each with what to do about it.
//!
//! What must not be done here: repair anything. Looking changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::ports::Raw;
use crate::actors::{Checks, Compared, Inventory, NetHealth, drops_said};
use crate::config::Config;
use crate::host::facts::HostFacts;
use crate::host::vmm::Accelerator;
use crate::model::{Amiss, Code, OpId, Size, chain};
use crate::ports::BaseImage;
use crate::store::Store;
use crate::wire::reply::CheckInfo;

/// Below this, `warn`; the refusal of new VMs begins at the configured reserve.
const COMFORTABLE_SPACE: Size = Size::from_mib(4096);

pub(super) fn checks(
    config: Arc<Config>,
    raw: &Raw,
    inventory: Inventory,
    network: watch::Receiver<NetHealth>,
) -> Checks {
    let raw = raw.clone();
    Arc::new(move |op| {
        let (config, raw, inventory, network) =
            (Arc::clone(&config), raw.clone(), inventory.clone(), network.clone());
        let store = inventory.store.clone();
        Box::pin(async move {
            let mut report = vec![architecture(), cpu(), state(&config)];
            report.push(space(&config, &raw).await);
            report.push(vmm(&config, &raw).await);
            report.push(disks(op, &config, &raw, &store).await);
            report.push(agent(&config));
            report.extend([
                program("mke2fs", "e2fsprogs", "needed to make disks and images", true),
                program("debugfs", "e2fsprogs", "needed to import images", true),
                program("mmdebstrap", "mmdebstrap", "needed by `banger image build debian`", false),
                program("newuidmap", "uidmap", "needed by `banger image build debian`", false),
            ]);
            let network = network.borrow().clone();
            report.push(helper(op, &config, &raw, &network).await);
            report.extend(firewall(&config, &network));
            report.push(ledger(op, &inventory).await);
            report.push(defaults(&config, &store));
            report
        })
    })
}

fn check(name: &str, verdict: &str, detail: impl Into<String>, hint: Option<&str>) -> CheckInfo {
    CheckInfo {
        name: name.to_owned(),
        verdict: verdict.to_owned(),
        detail: detail.into(),
        hint: hint.map(str::to_owned),
    }
}

fn architecture() -> CheckInfo {
    let arch = std::env::consts::ARCH;
    match arch {
        "x86_64" => check("architecture", "pass", arch, None),
        "aarch64" => {
            let detail = format!("{arch}: by Firecracker alone, and little tried");
            check("architecture", "warn", detail, None)
        }
        _ => check("architecture", "fail", format!("{arch}: no VMM runs guests on it"), None),
    }
}

/// Whether /dev/kvm opens says little: without these flags it runs guests badly or not at all.
fn cpu() -> CheckInfo {
    let kvm = Path::new("/dev/kvm").exists();
    match HostFacts::read() {
        Err(error) => check("virtualisation", "warn", chain(&error), None),
        Ok(facts) => match (facts.cpu.virtualisation, kvm) {
            (Some(flag), true) => match Accelerator::probe() {
                Ok((Accelerator::Tcg, why)) => {
                    let hint = "add the daemon's user to the group kvm, then restart the daemon";
                    check(
                        "virtualisation",
                        "warn",
                        format!("{why}; guests are emulated"),
                        Some(hint),
                    )
                }
                _ => check(
                    "virtualisation",
                    "pass",
                    format!("{} and has /dev/kvm", flag.as_str()),
                    None,
                ),
            },
            (Some(flag), false) => {
                let detail = format!("{}, but there is no /dev/kvm", flag.as_str());
                check(
                    "virtualisation",
                    "warn",
                    detail,
                    Some("load the module kvm_amd or kvm_intel; on ARM64, boot the host at EL2"),
                )
            }
            (None, _) => {
                let detail = "the CPU shows neither svm nor vmx; guests are emulated (slow)";
                let hint = "in a virtual machine, turn nested virtualisation on";
                check("virtualisation", "warn", detail, Some(hint))
            }
        },
    }
}

fn state(config: &Config) -> CheckInfo {
    check("state directory", "pass", config.state_dir.display().to_string(), None)
}

async fn space(config: &Config, raw: &Raw) -> CheckInfo {
    match raw.disk.free().await {
        Err(error) => check("free space", "fail", chain(&error), None),
        Ok(free) if free < config.limits.disk_reserve => {
            let detail = format!("{free} free; {} must stay free", config.limits.disk_reserve);
            check("free space", "fail", detail, Some("make room, or lower limits.disk_reserve"))
        }
        Ok(free) if free < COMFORTABLE_SPACE => {
            check("free space", "warn", format!("{free} free"), Some("make room soon"))
        }
        Ok(free) => check("free space", "pass", format!("{free} free"), None),
    }
}

async fn vmm(config: &Config, raw: &Raw) -> CheckInfo {
    match raw.hypervisor.describe(config.vmm).await {
        Ok(vmm) => match &vmm.warning {
            None => check("vmm", "pass", vmm.to_string(), None),
            Some(warning) => check("vmm", "warn", format!("{vmm}; {warning}"), None),
        },
        Err(error) => check("vmm", "fail", chain(&error), error.hints.first().map(String::as_str)),
    }
}

/// How the disks of the next VM will be made: of the default image, or of one as it would be
/// imported now.
async fn disks(op: OpId, config: &Config, raw: &Raw, store: &Store) -> CheckInfo {
    let image = store.image(&config.defaults.image).ok().flatten();
    let base = match image {
        Some(image) => raw.images.base(op, image.digest).await.ok(),
        None => None,
    };
    let (path, size) = (config.state_dir.clone(), Size::from_mib(1));
    let base = base.unwrap_or(BaseImage { path, uuid: [0; 16], size, growable: true });
    match raw.disk.choose(op, config.disk_backend, &base).await {
        Ok(root) => check("disks", "pass", format!("{}: {}", root.backend, root.why), None),
        Err(error) => {
            check("disks", "fail", chain(&error), error.hints.first().map(String::as_str))
        }
    }
}

fn agent(config: &Config) -> CheckInfo {
    let path = super::ports::agent_bin(config);
    match path.is_file() {
        true => check("guest agent", "pass", path.display().to_string(), None),
        false => {
            let hint = "build it (see README) and put it beside bangerd, or set agent_bin";
            check("guest agent", "fail", format!("{} is missing", path.display()), Some(hint))
        }
    }
}

fn program(name: &str, package: &str, why: &str, required: bool) -> CheckInfo {
    match find(name) {
        Some(path) => check(name, "pass", path.display().to_string(), None),
        None => {
            let verdict = if required { "fail" } else { "warn" };
            let hint = format!("apt-get install {package}");
            check(name, verdict, format!("not found; {why}"), Some(&hint))
        }
    }
}

/// Administrators' programs are often not in a user's PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

async fn helper(op: OpId, config: &Config, raw: &Raw, network: &NetHealth) -> CheckInfo {
    const NAME: &str = "root helper";
    let socket = config.helper_socket.display();
    let hint = "start banger-helper as root (see README); bangerd finds it by itself";
    let seen = match raw.net.survey(op).await {
        Ok(seen) => seen,
        Err(error) => {
            let own = matches!(error.code, Code::Denied | Code::Protocol);
            let own = error.hints.first().filter(|_| own).map_or(hint, String::as_str);
            return check(NAME, "fail", chain(&error), Some(own));
        }
    };
    if let Some(problem) = &network.problem {
        return check(NAME, "fail", problem, None);
    }
    let version = env!("CARGO_PKG_VERSION");
    if seen.helper != version {
        let detail = format!("it is of version {}, this daemon of {version}", seen.helper);
        return check(NAME, "warn", detail, Some("install both of one version, restart both"));
    }
    let (taps, bridge) = (seen.taps.len(), &config.network.bridge);
    check(NAME, "pass", format!("{socket}; {taps} taps on {bridge}"), None)
}

/// Both ways: what is there without a row, what has a row and is not there.
async fn ledger(op: OpId, inventory: &Inventory) -> CheckInfo {
    const NAME: &str = "host resources";
    let compared = match inventory.compare(op).await {
        Ok(compared) => compared,
        Err(failure) => {
            let hint = failure.hints.first().map(String::as_str);
            return check(NAME, "warn", format!("not compared: {failure}"), hint);
        }
    };
    let Compared { mismatches, rows, things } = compared;
    let named = |amiss: Amiss| -> Vec<_> {
        let found = mismatches.iter().filter(|found| found.amiss == amiss);
        found.map(|found| format!("{} {}", found.thing.kind, found.thing.name)).collect()
    };
    let said: Vec<_> = [Amiss::Orphan, Amiss::Lost]
        .into_iter()
        .map(|amiss| (amiss, named(amiss)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(amiss, names)| format!("{} {}: {}", names.len(), amiss.as_str(), few(&names)))
        .collect();
    match said.is_empty() {
        true => {
            let detail = format!("{rows} in the ledger, {things} on the host, and they agree");
            check(NAME, "pass", detail, None)
        }
        false => {
            let hint = "`banger gc` says why and what would be done; `banger gc --yes` does it";
            check(NAME, "warn", said.join("; "), Some(hint))
        }
    }
}

fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn firewall(config: &Config, network: &NetHealth) -> Option<CheckInfo> {
    if network.drops.is_empty() {
        return None;
    }
    let said = drops_said(config.network.bridge.as_str(), &network.drops);
    Some(check("firewall", "warn", said, None))
}

fn defaults(config: &Config, store: &Store) -> CheckInfo {
    let image = &config.defaults.image;
    let there = matches!(store.image(image), Ok(Some(_)));
    let kernel = store.kernel_to_boot(&config.defaults.kernel).ok().flatten();
    let sizes = format!("{} vcpu, {} MiB", config.defaults.vcpu, config.defaults.memory_mib);
    match (there, kernel) {
        (true, Some(kernel)) => {
            let said = format!("{sizes}, image {image}, kernel {}", kernel.name);
            check("vm defaults", "pass", said, None)
        }
        (false, _) => {
            let hint = format!("banger image build debian --name {image}");
            check(
                "vm defaults",
                "warn",
                format!("the default image {image} does not exist"),
                Some(&hint),
            )
        }
        (true, None) => {
            let said = match config.defaults.kernel.as_str() {
                "" => "there is no kernel to boot".to_owned(),
                named => format!("the default kernel {named} does not exist"),
            };
            check("vm defaults", "warn", said, Some("banger kernel import NAME PACKAGE.deb"))
        }
    }
}
