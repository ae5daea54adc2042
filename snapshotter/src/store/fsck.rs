//! Checking what must always hold in a store.
//!
//! Owns the list of invariants. Must not repair: what a crash leaves is no damage, and opening the store has removed it. Invariant: reads
//! everything, changes nothing.

use super::metadata::View;
use super::{Store, dirs};
use crate::digest::{ChainId, Digest, Hasher};
use crate::error::{Error, Result};
use crate::snapshot::{Kind, Snapshot, lifecycle};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const READ_BYTES: usize = 1 << 20;

impl Store {
    /// Every invariant that does not hold, as a sentence each.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Metadata`]: what cannot be read at all.
    pub fn fsck(&self) -> Result<Vec<String>> {
        let snapshots = self.list_all()?;
        let mut damage = self.check_tables(&snapshots)?;
        check_parents(&snapshots, &mut damage);
        self.check_directories(&snapshots, &mut damage)?;
        self.check_blobs(&mut damage)?;
        Ok(damage)
    }

    fn check_tables(&self, snapshots: &[Snapshot]) -> Result<Vec<String>> {
        let found = self.metadata().read(View::references)?;
        let expected = View::expected_references(snapshots);
        let wrong = found.difference(&expected).map(|what| format!("{what}, which has no such record"));
        let missing = expected.difference(&found).map(|what| format!("no table says that {what}"));
        Ok(wrong.chain(missing).collect())
    }

    fn check_directories(&self, snapshots: &[Snapshot], damage: &mut Vec<String>) -> Result<()> {
        let dirs = self.dirs();
        let mut contents = HashSet::new();
        for snapshot in snapshots {
            contents.insert(snapshot.content.to_string());
            let layer = dirs.layer(snapshot.content);
            if !layer.is_dir() {
                damage.push(format!("snapshot {:?}: its layer {} is missing", snapshot.key, layer.display()));
            }
            if snapshot.is_doubtful()? {
                damage.push(format!(
                    "snapshot {:?}: the machine went down before its files were on disk, some may be missing or cut; remove it, \
                     and pull or build its image anew",
                    snapshot.key
                ));
            }
            if snapshot.kind == Kind::Active && !dirs.work(snapshot.content).is_dir() {
                damage.push(format!("snapshot {:?}: its work directory is missing", snapshot.key));
            }
        }
        let ids: HashSet<String> = snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect();
        for (place, known) in [(dirs.snapshots(), &contents), (dirs.mounts(), &ids)] {
            let strange = dirs::names(&place)?.into_iter().filter(|name| !known.contains(name));
            damage.extend(strange.map(|name| format!("{}/{name} belongs to no snapshot", place.display())));
        }
        Ok(())
    }

    fn check_blobs(&self, damage: &mut Vec<String>) -> Result<()> {
        let directory = self.dirs().blobs();
        for name in dirs::names(&directory)? {
            let path = directory.join(&name);
            match Digest::from_hex(&name) {
                Ok(digest) if hash(&path)? == digest => {}
                Ok(_) => damage.push(format!("blob {}: its content has another digest", path.display())),
                Err(_) => damage.push(format!("{}: not the name of a blob", path.display())),
            }
        }
        for image in self.images()? {
            if self.blob(&image.manifest)?.is_none() {
                damage.push(format!("image {:?}: its manifest {} is missing", image.reference, image.manifest));
            }
        }
        Ok(())
    }
}

fn check_parents(snapshots: &[Snapshot], damage: &mut Vec<String>) {
    let by_id: HashMap<u64, &Snapshot> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot)).collect();
    for snapshot in snapshots {
        let mut say = |what: String| damage.push(format!("snapshot {:?}: {what}", snapshot.key));
        let parent = snapshot.parent.and_then(|parent| by_id.get(&parent));
        if let Some(diff) = &snapshot.diff_id {
            let below = parent.and_then(|parent| parent.chain_id);
            let expected = ChainId::of(below.as_ref(), diff);
            if snapshot.chain_id != Some(expected) {
                say(format!("its chain should be {expected}"));
            }
        }
        match (snapshot.parent, parent) {
            (None, _) if snapshot.parent_key.is_empty() => {}
            (None, _) => say(format!("its parent {:?} has no number", snapshot.parent_key)),
            (Some(number), None) => say(format!("its parent, number {number}, is missing")),
            (Some(_), Some(parent)) => {
                if !snapshot.space.may_stand_on(&parent.space) || parent.key != snapshot.parent_key {
                    say(format!("its parent is {:?} and should be {:?}", parent.key, snapshot.parent_key));
                }
                if let Err(error) = lifecycle::may_be_parent(parent) {
                    say(error.to_string());
                }
            }
        }
    }
    let mut shown: HashMap<u64, usize> = HashMap::new();
    snapshots.iter().for_each(|snapshot| *shown.entry(snapshot.content).or_default() += 1);
    for snapshot in snapshots {
        if snapshot.kind == Kind::Active && shown.get(&snapshot.content).is_some_and(|count| *count > 1) {
            damage.push(format!("snapshot {:?}: another one shows the layer that it writes", snapshot.key));
        }
        let (mut below, mut steps) = (snapshot, 0);
        while let Some(parent) = below.parent.and_then(|parent| by_id.get(&parent)) {
            (below, steps) = (parent, steps + 1);
            if steps > snapshots.len() {
                damage.push(format!("snapshot {:?}: its parents form a circle", snapshot.key));
                break;
            }
        }
    }
}

fn hash(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut hasher, mut bytes) = (Hasher::default(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut bytes).map_err(Error::io("read", path))? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&bytes[..length]),
        }
    }
}
