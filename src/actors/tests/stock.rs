//! What VMs are made of on the simulated host: one image, one kernel.

use super::*;

pub(super) async fn stock(store: &Store, sim: &SimWorld) {
    let nothing: crate::ports::ProgressSink = Arc::new(|_| {});
    let cancel = CancellationToken::new();
    let recipe = ImageRecipe::Debian { suite: "sid".to_owned(), include: vec![], mirror: None };
    let file = sim.make_image(op(0), &recipe, Arc::clone(&nothing), &cancel).await.unwrap();
    let image = ImageRecord {
        name: "debian".parse().unwrap(),
        digest: file.digest,
        uuid: file.uuid,
        size: file.size,
        source: file.source,
        created_unix_ms: 0,
    };
    store.put_image(image, file.config).await.unwrap();
    let recipe = KernelRecipe::Packages { paths: vec!["/dev/null".into()] };
    let file = sim.make_kernel(op(0), &recipe, nothing, &cancel).await.unwrap();
    let kernel = KernelRecord {
        name: "debian".parse().unwrap(),
        digest: file.digest,
        version: file.version,
        distro: file.distro,
        arch: file.arch,
        modules: 0,
        size: file.size,
        source: file.source,
        created_unix_ms: 0,
    };
    store.put_kernel(kernel, file.features).await.unwrap();
}
