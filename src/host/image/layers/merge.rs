//! The two readings. Blocking.

use std::fs::File;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::source::{Layer, Meter, TooMuch};
use super::whiteout::{Mark, mark};
use crate::host::image::ext4::{Builder, FileId, Refusal, refused};
use crate::host::image::import::{Cancellable, ImportError, Watch, tar_meta};
use crate::host::image::tarball::{TarEntry, TarError, TarKind, Tarball};
use crate::host::image::unpack::unpack;
use crate::model::{Digest, ImageLimits};
use crate::ports::HostError;

/// A file and where its contents are: so many entries into that layer.
#[derive(Clone, Copy)]
struct Origin {
    layer: usize,
    entry: usize,
    file: FileId,
}

/// Puts the layers, the lowest first, one over the other into an image that is empty yet.
pub(in crate::host::image) fn merge(
    layers: &[Layer],
    limits: &ImageLimits,
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    builder.limit_entries(limits.entries);
    let mut first = FirstReading { limits, builder, watch, files: vec![], bytes: 0, content: 0 };
    for (number, layer) in layers.iter().enumerate() {
        (first.watch.progress)(format!("reading layer {} of {}", number + 1, layers.len()));
        first.layer(number, layer).map_err(|error| within(layer, first.watch.blame(error)))?;
        first.builder.next_layer();
    }
    let files = first.files;
    let still = builder.settle(files.iter().map(|origin| origin.file))?;
    let left = files.into_iter().zip(still);
    let left: Vec<_> =
        left.filter_map(|(origin, file)| Some(Origin { file: file?, ..origin })).collect();
    for wanted in left.chunk_by(|a, b| a.layer == b.layer) {
        let layer = &layers[wanted[0].layer];
        let filled = second_reading(layer, wanted, builder, watch);
        filled.map_err(|error| within(layer, watch.blame(error)))?;
    }
    Ok(())
}

/// Layers alone, into a file that is new and empty; for who has no images.
pub fn merge_layers(
    layers: &[Layer],
    limits: &ImageLimits,
    into: File,
) -> Result<Digest, HostError> {
    let mut builder = Builder::new(into);
    let mut watch = Watch::new(Arc::new(|_| {}), CancellationToken::new());
    let merged = merge(layers, limits, &mut builder, &mut watch);
    let built = merged.and_then(|()| Ok(builder.finish()?));
    built.map(|built| built.digest).map_err(|error| error.on("merge", "layers"))
}

fn within(layer: &Layer, source: ImportError) -> ImportError {
    ImportError::Layer { layer: layer.name().to_owned(), source: Box::new(source) }
}

struct FirstReading<'a> {
    limits: &'a ImageLimits,
    builder: &'a mut Builder,
    watch: &'a mut Watch,
    files: Vec<Origin>,
    /// Unpacked so far, and what the entries say they are, holes included.
    bytes: u64,
    content: u64,
}

impl FirstReading<'_> {
    fn layer(&mut self, number: usize, layer: &Layer) -> Result<(), ImportError> {
        let opened = layer.open().map_err(ImportError::Open)?;
        let allowance = layer.allowance(self.limits, self.bytes);
        let meter = Meter::new(unpack(opened)?.from, allowance, self.watch.cancel.clone());
        let mut tar = Tarball::of_layer(meter);
        let mut name = "its beginning".to_owned();
        let mut entry = 0;
        loop {
            let next = tar.next().map_err(|error| match tar.source().too_much() {
                Some(why) => ImportError::TooMuch { entry: name.clone(), why },
                None => error.into(),
            })?;
            let Some(next) = next else { break };
            self.watch.going_on()?;
            name = String::from_utf8_lossy(&next.path).into_owned();
            self.count(&name, &next)?;
            if let Some(file) = add(self.builder, &next)? {
                self.files.push(Origin { layer: number, entry, file });
            }
            entry += 1;
        }
        self.bytes += tar.source().bytes();
        let found = tar.source().digest();
        match layer.diff_id() {
            Some(wanted) if wanted != found => Err(ImportError::DiffId { wanted, found }),
            _ => Ok(()),
        }
    }

    fn count(&mut self, name: &str, entry: &TarEntry) -> Result<(), ImportError> {
        if entry.kind == TarKind::File {
            self.content = self.content.saturating_add(entry.size);
        }
        if self.content > self.limits.size.bytes() {
            let why = TooMuch::Size(self.limits.size);
            return Err(ImportError::TooMuch { entry: name.to_owned(), why });
        }
        Ok(())
    }
}

fn add(builder: &mut Builder, entry: &TarEntry) -> Result<Option<FileId>, ImportError> {
    let path = &entry.path;
    match mark(path) {
        Mark::None => {}
        Mark::Internal => return Ok(None),
        Mark::Nameless => return Err(refused(path, Refusal::Whiteout).into()),
        Mark::Opaque(dir) => {
            builder.opaque(&dir).map_err(|why| refused(path, why))?;
            return Ok(None);
        }
        Mark::Whiteout(hidden) => {
            builder.whiteout(&hidden).map_err(|why| refused(path, why))?;
            return Ok(None);
        }
    }
    let meta = tar_meta(entry)?;
    match &entry.kind {
        TarKind::File => return Ok(Some(builder.place_file(path, meta, entry.size)?)),
        TarKind::Dir => builder.place_directory(path, meta)?,
        TarKind::HardLink(target) => builder.place_hard_link(path, target)?,
        TarKind::Symlink(target) => builder.place_symlink(path, meta, target)?,
        TarKind::Special(special) => builder.place_special(path, meta, *special)?,
    }
    Ok(None)
}

/// `wanted` are in the order of the layer, which is read no further than the last of them.
fn second_reading(
    layer: &Layer,
    wanted: &[Origin],
    builder: &mut Builder,
    watch: &mut Watch,
) -> Result<(), ImportError> {
    let opened = layer.open().map_err(ImportError::Open)?;
    let from = Cancellable::new(unpack(opened)?.from, watch.cancel.clone());
    let mut tar = Tarball::of_layer(from);
    let mut next = 0;
    for origin in wanted {
        let entry = loop {
            let entry = tar.next()?.ok_or(TarError::CutShort)?;
            next += 1;
            if next == origin.entry + 1 {
                break entry;
            }
        };
        watch.going_on()?;
        builder.fill(origin.file, &entry.path, &mut tar.contents())?;
        watch.count(entry.size, builder.entries());
    }
    Ok(())
}
