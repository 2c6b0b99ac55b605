//! What the helper may be asked to start. Its own arguments say so, and only it knows them: a VMM
//! that is installed and not allowed would be refused at each start.

use std::path::Path;

use crate::host::helper_client::HelperClient;
use crate::model::{Code, OpId};
use crate::ports::HostError;
use crate::wire::helper::{PermitReport, VmmProgram};

/// The question is nobody's operation.
const NOBODYS: OpId = OpId([0; 16]);

#[derive(Clone, Debug)]
pub(super) enum Permits {
    Of(HelperClient),
    #[cfg(test)]
    Fixed(PermitReport),
}

impl Permits {
    pub(super) async fn ask(&self) -> Result<PermitReport, HostError> {
        match self {
            Self::Of(helper) => helper.permits(NOBODYS).await,
            #[cfg(test)]
            Self::Fixed(report) => Ok(report.clone()),
        }
    }
}

/// The jailer to start `vmm` by, if the helper allows both.
pub(super) fn jailer<'a>(report: &'a PermitReport, vmm: &Path) -> Result<&'a Path, HostError> {
    let refused = |why: String| {
        let hint = format!("start banger-helper with --vmm {} and --jailer PATH", vmm.display());
        HostError::new(Code::Refused, "use VMM", "firecracker").because(why).hint(hint)
    };
    let real = vmm.canonicalize().unwrap_or_else(|_| vmm.to_owned());
    let known = report.vmms.iter().find(|known| Path::new(&known.path) == real);
    let Some(known) = known else {
        return Err(refused(format!("the helper was not told --vmm {}", vmm.display())));
    };
    let Some(jailer) = &report.jailer else {
        return Err(refused("it runs in a jail, and the helper was told no --jailer".to_owned()));
    };
    for VmmProgram { path, refused: why } in [known, jailer] {
        if let Some(why) = why {
            return Err(refused(format!("the helper does not start {path}: {why}")));
        }
    }
    Ok(Path::new(&jailer.path))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::chain;

    pub(in crate::host::vmm) fn report(vmm: &Path, jailer: Option<&Path>) -> PermitReport {
        let program = |path: &Path| VmmProgram { path: path.display().to_string(), refused: None };
        PermitReport {
            vmms: vec![program(vmm)],
            jailer: jailer.map(program),
            first_uid: 1_900_000_000,
            last_uid: 1_900_004_095,
        }
    }

    #[test]
    fn both_must_be_allowed_and_safe() {
        let (vmm, other) = (Path::new("/opt/firecracker"), Path::new("/opt/jailer"));
        let whole = report(vmm, Some(other));
        assert_eq!(jailer(&whole, vmm).unwrap(), other);
        let mut unsafe_one = whole.clone();
        unsafe_one.vmms[0].refused = Some("it is anybody's".to_owned());
        for (report, why) in [
            (report(Path::new("/usr/bin/qemu"), Some(other)), "not told --vmm /opt/firecracker"),
            (report(vmm, None), "told no --jailer"),
            (unsafe_one, "does not start /opt/firecracker: it is anybody's"),
        ] {
            let error = jailer(&report, vmm).unwrap_err();
            assert_eq!(error.code, Code::Refused);
            assert!(chain(&error).contains(why), "{error:?}");
            assert!(error.hints[0].contains("--jailer"), "{:?}", error.hints);
        }
    }
}
