//! Every kind of work on images and kernels, cut short at each of its writes and between any two of its
//! effects: the next daemon ends the operation, every name has its file and every file a name.

use std::collections::BTreeSet;

use super::stage::{Point, directory, system};
use super::*;
use crate::actors::images::{Delete, ImagesActor, ImagesDeps, Kind, Make, Recipe, Tag, sweep};
use crate::model::{Digest, Name};
use crate::ports::{Containerfile, Download, RootSource};

/// What is asked for, once for all.
const OP: u8 = 9;

#[derive(Clone, Debug)]
enum Ask {
    Make(&'static str, Recipe),
    Delete(&'static str, Kind),
    Tag(&'static str, &'static str),
}

fn build(suite: &str) -> Recipe {
    Recipe::Image(ImageRecipe::Debian { suite: suite.to_owned(), include: vec![], mirror: None })
}

/// One simulated host and its state directory, on which daemons follow each other.
struct Shelf {
    sim: Arc<SimWorld>,
    dir: tempfile::TempDir,
}

struct Daemon {
    store: Store,
    images: Handle<ImagesActor>,
    power: CancellationToken,
}

impl Shelf {
    /// With an image and a kernel.
    fn new() -> Self {
        let sim = Arc::new(SimWorld::new(SimOptions::new("10.9.0.0/24".parse().unwrap())));
        let dir = directory();
        system().block_on(async {
            let store = Store::open_mortal(dir.path(), CancellationToken::new()).unwrap();
            stock(&store, &sim).await;
        });
        Self { sim, dir }
    }

    /// As the daemon comes up: operations are settled, then files are swept.
    async fn daemon(&self) -> Daemon {
        let power = CancellationToken::new();
        self.sim.serve(power.clone());
        let store = Store::open_mortal(self.dir.path(), power.clone()).unwrap();
        let (clock, images): (Arc<dyn crate::ports::Clock>, Arc<dyn ImageHost>) =
            (Arc::<SimWorld>::clone(&self.sim), Arc::<SimWorld>::clone(&self.sim));
        let (mut ports, _) = crate::sim::ports(SimOptions::new("10.9.0.0/24".parse().unwrap()));
        (ports.clock, ports.images) = (Arc::clone(&clock), Arc::clone(&images));
        ports.process = Arc::<SimWorld>::clone(&self.sim);
        ports.disk = Arc::<SimWorld>::clone(&self.sim);
        let (mint, events) =
            (Mint::new(Arc::clone(&clock)), EventSink::new(store.clone(), Arc::clone(&clock)));
        let settings = Arc::new(Settings::new("10.9.0.0/24".parse().unwrap(), vec![]));
        let warm = Arc::clone(&ports.warm);
        sweep(&store, &*images, &*warm, mint.op()).await;
        let (all, told) = (mint.clone(), events.clone());
        recover(&Arc::new(VmDeps {
            store: store.clone(),
            ports,
            settings,
            events: told,
            mint: all,
        }))
        .await
        .unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let deps =
            ImagesDeps { store: store.clone(), images, warm, clock, events, mint, tasks, cancel };
        Daemon { images: ImagesActor::launch(deps), store, power }
    }
}

impl Daemon {
    async fn ask(&self, ask: &Ask, op: OpId) -> Outcome {
        let (name, ctx) = (|text: &str| Name::image(text).unwrap(), OpCtx::within(op, LIMIT));
        let ticket = match ask.clone() {
            Ask::Make(called, recipe) => {
                self.images.call(ctx, Make { name: name(called), recipe, request_hash: 1 }).await
            }
            Ask::Delete(called, kind) => {
                let delete = Delete { name: name(called), kind, request_hash: 1 };
                self.images.call(ctx, delete).await
            }
            Ask::Tag(image, tag) => {
                let tag = Tag { image: name(image), tag: name(tag), request_hash: 1 };
                self.images.call(ctx, tag).await
            }
        };
        ticket.unwrap().end().await.unwrap().op.outcome.unwrap()
    }

    /// An image's with a mark, if it says how it is run.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        let images = self.store.images().unwrap().into_iter().map(|image| {
            let says = self.store.image_config(image.name.as_str()).unwrap().is_some();
            format!("{}{}", image.name, if says { " says" } else { "" })
        });
        let kernels = self.store.kernels().unwrap().into_iter();
        (images.collect(), kernels.map(|kernel| kernel.name.to_string()).collect())
    }

    /// Every name has its file, every file a name.
    fn agrees(&self, sim: &SimWorld) -> bool {
        let world = sim.world();
        let images = self.store.images().unwrap().into_iter().map(|image| image.digest);
        let kernels = self.store.kernels().unwrap().into_iter().map(|kernel| kernel.digest);
        images.collect::<BTreeSet<_>>() == world.images.keys().copied().collect()
            && kernels.collect::<BTreeSet<_>>() == world.kernels.keys().copied().collect()
    }
}

/// Plays it whole, then with a crash at each point, of each kind.
fn everywhere(ask: &Ask) {
    let shelf = Shelf::new();
    let (before, after, used) = system().block_on(async {
        let daemon = shelf.daemon().await;
        let before = daemon.names();
        let start = (shelf.sim.calls(), daemon.store.mortal().writes());
        assert_eq!(daemon.ask(ask, op(OP)).await, Outcome::Done);
        until("files and names agree", || daemon.agrees(&shelf.sim)).await;
        let used = (shelf.sim.calls() - start.0, daemon.store.mortal().writes() - start.1);
        (before, daemon.names(), used)
    });
    assert_ne!(before, after);
    // A name is a write and nothing else.
    let is_tag = matches!(ask, Ask::Tag(..));
    assert!((used.0 > 0 || is_tag) && used.1 > 1, "{used:?}");
    for n in 0..used.1 {
        let shelf = Shelf::new();
        system().block_on(unwritten_for_a_while(&shelf, ask, n, &before, &after));
    }
    for at in (0..used.0).map(Point::Effect).chain((0..used.1).map(Point::Write)) {
        for kept in [false, true] {
            let shelf = Shelf::new();
            // With the runtime goes whatever still waits.
            system().block_on(cut_short(&shelf, ask, at, kept));
            shelf.sim.forget_faults();
            let what = format!("{ask:?} cut at {at:?}, kept: {kept}");
            system().block_on(next_daemon(&shelf, ask, &what, &before, &after));
        }
    }
}

/// The nth write and two more fail: the same daemon ends what it began.
async fn unwritten_for_a_while(shelf: &Shelf, ask: &Ask, n: usize, before: &Names, after: &Names) {
    let daemon = shelf.daemon().await;
    let first = daemon.store.mortal().writes() + n;
    daemon.store.mortal().refuses(first..first + 3);
    let (outcome, what) = (daemon.ask(ask, op(OP)).await, format!("{ask:?} unwritten at {n}"));
    daemon.store.mortal().refuses(0..0);
    assert!(daemon.store.open_ops().unwrap().is_empty(), "{what}: an operation without an end");
    let fits = if outcome == Outcome::Done { after } else { before };
    assert_eq!(daemon.names(), *fits, "{what}: {outcome:?}");
    until("files and names agree", || daemon.agrees(&shelf.sim)).await;
}

async fn cut_short(shelf: &Shelf, ask: &Ask, at: Point, kept: bool) {
    let daemon = shelf.daemon().await;
    match at {
        Point::Effect(n) => shelf.sim.plan(At::Call(shelf.sim.calls() + n), Fault::Die(kept)),
        Point::Write(n) => {
            daemon.store.mortal().dies_at(daemon.store.mortal().writes() + n, kept);
        }
    }
    tokio::select! {
        biased;
        () = daemon.power.cancelled() => {}
        outcome = daemon.ask(ask, op(OP)) => assert_eq!(outcome, Outcome::Done),
    }
    daemon.power.cancel();
}

type Names = (Vec<String>, Vec<String>);

async fn next_daemon(shelf: &Shelf, ask: &Ask, what: &str, before: &Names, after: &Names) {
    let daemon = shelf.daemon().await;
    assert!(daemon.store.open_ops().unwrap().is_empty(), "{what}: an operation without an end");
    assert!(daemon.agrees(&shelf.sim), "{what}: {:?}", shelf.sim.world());
    let names = daemon.names();
    let known = daemon.store.op(op(OP)).unwrap().and_then(|op| op.outcome);
    let fits = match &known {
        Some(Outcome::Done) => names == *after,
        // The name may have come, or gone, before the outcome was written.
        Some(Outcome::RolledBack { .. }) => names == *before || names == *after,
        None => names == *before,
        Some(_) => false,
    };
    assert!(fits, "{what}: {known:?}, {names:?}");
    // Whoever asks again, under another id, gets what was wanted.
    if names != *after {
        assert_eq!(daemon.ask(ask, op(OP + 1)).await, Outcome::Done, "{what}");
        assert_eq!(daemon.names(), *after, "{what}");
    }
    until("files and names agree", || daemon.agrees(&shelf.sim)).await;
}

#[test]
fn a_pull_of_an_image() {
    let called = "quay.io/team/app:1";
    everywhere(&Ask::Make(called, Recipe::Pull(called.parse().unwrap())));
}

fn bundle() -> Download {
    Download { url: "https://example.org/a?b".to_owned(), digest: Digest([7; 32]), size: None }
}

#[test]
fn a_bundle_of_an_image_from_a_url() {
    everywhere(&Ask::Make("other", Recipe::Download(Kind::Image, bundle())));
}

#[test]
fn a_bundle_of_a_kernel_from_a_url() {
    everywhere(&Ask::Make("other", Recipe::Download(Kind::Kernel, bundle())));
}

#[test]
fn a_build_of_an_image() {
    everywhere(&Ask::Make("other", build("trixie")));
}

#[test]
fn a_build_of_contents_that_are_there_under_another_name() {
    everywhere(&Ask::Make("other", build("sid")));
}

#[test]
fn a_build_of_a_containerfile() {
    let (file, target, arguments) = (None, None, vec![]);
    let order = Containerfile { context: "/src".into(), file, target, arguments };
    everywhere(&Ask::Make("other", Recipe::Image(ImageRecipe::Containerfile(order))));
}

#[test]
fn an_import_of_an_image() {
    let recipe = Recipe::Image(ImageRecipe::Tar { path: "/dev/null".into() });
    everywhere(&Ask::Make("other", recipe));
}

#[test]
fn an_import_of_a_kernel() {
    let files = KernelRecipe::Files { kernel: "/dev/null".into(), modules: None };
    everywhere(&Ask::Make("other", Recipe::Kernel(files)));
}

#[test]
fn a_pull_of_a_kernel() {
    let called = "linux-image-cloud-amd64";
    let asked = crate::model::DebianKernel::new(called, None).unwrap();
    everywhere(&Ask::Make(called, Recipe::PullKernel(asked)));
}

#[test]
fn a_delete_of_an_image() {
    everywhere(&Ask::Delete("debian", Kind::Image));
}

#[test]
fn a_delete_of_a_kernel() {
    everywhere(&Ask::Delete("debian", Kind::Kernel));
}

#[test]
fn one_more_name_for_an_image() {
    everywhere(&Ask::Tag("debian", "other"));
}

/// A layout, whose image says how it is run.
#[test]
fn an_import_of_an_image_that_says_how_it_is_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("oci-layout"), "{}").unwrap();
    let recipe = Recipe::Image(ImageRecipe::Directory { path: dir.path().to_owned() });
    everywhere(&Ask::Make("other", recipe));
}

#[test]
fn a_commit_of_a_vms_root() {
    let sim = SimWorld::new(SimOptions::new("10.9.0.0/24".parse().unwrap()));
    let base = system().block_on(async {
        let recipe = ImageRecipe::Debian { suite: "sid".to_owned(), include: vec![], mirror: None };
        let cancel = CancellationToken::new();
        sim.make_image(op(0), &recipe, Arc::new(|_| {}), &cancel).await.unwrap().digest
    });
    let root = RootSource::Overlay("/sim/overlay".into());
    let config = crate::model::ImageConfig { cmd: vec!["a".to_owned()], ..Default::default() };
    let config = Some(Box::new(config));
    let recipe = ImageRecipe::Root { vm: "web".to_owned(), base, root, config };
    everywhere(&Ask::Make("other", Recipe::Image(recipe)));
}
