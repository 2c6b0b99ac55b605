//! Which names of images nobody needs, and why the others stay. Pure.

use super::image::ImageRecord;
use super::vm::VmRecord;

/// What becomes of a name when unused images are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneVerdict {
    pub image: ImageRecord,
    /// Why it stays; a name without a reason goes.
    pub kept: Option<String>,
}

/// `default` is the image of VMs that name none.
#[must_use]
pub fn prune_images(
    images: Vec<ImageRecord>,
    vms: &[VmRecord],
    default: &str,
) -> Vec<PruneVerdict> {
    let verdict = |image: ImageRecord| {
        let mut users: Vec<_> = vms
            .iter()
            .filter(|vm| vm.image == image.digest)
            .map(|vm| vm.spec.name.as_str())
            .collect();
        users.sort_unstable();
        let kept = match &users[..] {
            _ if image.name.as_str() == default => Some("it is the default image".to_owned()),
            [] => None,
            [one] => Some(format!("used by {one}")),
            [one, two] => Some(format!("used by {one} and {two}")),
            [one, two, more @ ..] => Some(format!("used by {one}, {two} and {} more", more.len())),
        };
        PruneVerdict { image, kept }
    };
    images.into_iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Name, Size};

    fn image(name: &str, content: u8) -> ImageRecord {
        ImageRecord {
            name: Name::artefact(name).unwrap(),
            digest: Digest([content; 32]),
            uuid: [content; 16],
            size: Size::from_mib(1),
            source: String::new(),
            created_unix_ms: 0,
        }
    }

    #[test]
    fn the_default_stays_and_the_rest_goes_without_vms() {
        let images = vec![image("debian", 1), image("other", 2), image("twin", 1)];
        let verdicts = prune_images(images, &[], "debian");
        let kept: Vec<_> = verdicts.iter().map(|one| one.kept.is_some()).collect();
        assert_eq!(kept, [true, false, false]);
    }
}
