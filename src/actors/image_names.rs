//! What people call images: a name that was given here wins over what a registry may have.

use super::house::House;
use super::images::{Make, Recipe};
use super::session::{Refusal, Response};
use crate::model::{Code, Failure, ImageRef, Name, OpId};
use crate::store::Store;
use crate::wire::request::PullWhen;

/// The name in the store. A word alone is a reference only where its image is here already; what has
/// a slash, a colon or an `@` in it can be nothing else.
pub(super) fn resolve(store: &Store, text: &str) -> Result<Name, Failure> {
    let known = |name: &Name| {
        let found = store.image(name.as_str()).map_err(|error| Failure::from(&error));
        Ok::<_, Failure>(found?.is_some())
    };
    let given = Name::image(text);
    if let Ok(name) = &given
        && known(name)?
    {
        return Ok(name.clone());
    }
    let invalid = |error: &dyn std::error::Error| Failure::from_error(Code::Invalid, error);
    match (text.parse::<ImageRef>(), ImageRef::is_meant(text)) {
        (Ok(image), true) => Ok(Name::from(&image)),
        (Ok(image), false) if known(&Name::from(&image))? => Ok(Name::from(&image)),
        (Err(error), true) => Err(invalid(&error)),
        _ => given.map_err(|error| invalid(&error)),
    }
}

pub(super) async fn pull(
    house: &House,
    op_id: OpId,
    text: &str,
    when: PullWhen,
    request_hash: u64,
) -> Result<Response, Refusal> {
    if when == PullWhen::Missing {
        let name = resolve(&house.store, text)?;
        let here = house.store.image(name.as_str()).map_err(|error| Failure::from(&error))?;
        if here.is_some() {
            return Ok(Response::Now(crate::wire::reply::Answer::Nothing));
        }
    }
    let image: ImageRef =
        text.parse().map_err(|error| Failure::from_error(Code::Invalid, &error))?;
    let (name, recipe) = (Name::from(&image), Recipe::Pull(image));
    let make = Make { name, recipe, request_hash };
    Ok(Response::Follow(house.images.call(house.ctx(op_id), make).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, ImageRecord, Size};

    #[tokio::test]
    async fn a_name_given_here_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let called = |text: &str| resolve(&store, text).map(|name| name.to_string());
        assert_eq!(called("alpine").unwrap(), "alpine");
        assert_eq!(called("alpine:3").unwrap(), "docker.io/library/alpine:3");
        for bad in ["", "Alpine", "a b:1", "http://x/y", &"x".repeat(600)] {
            assert_eq!(called(bad).unwrap_err().code, Code::Invalid, "{bad}");
        }
        let put = |text: &str| ImageRecord {
            name: Name::image(text).unwrap(),
            digest: Digest([1; 32]),
            uuid: [1; 16],
            size: Size::from_mib(1),
            source: String::new(),
            created_unix_ms: 1,
        };
        store.put_image(put("docker.io/library/alpine:latest"), None).await.unwrap();
        assert_eq!(called("alpine").unwrap(), "docker.io/library/alpine:latest");
        store.put_image(put("alpine"), None).await.unwrap();
        assert_eq!(called("alpine").unwrap(), "alpine");
        assert_eq!(called("alpine:latest").unwrap(), "docker.io/library/alpine:latest");
    }
}
