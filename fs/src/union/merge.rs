//! What is visible is a pure function of what each layer says about a name.
//!
//! Owns all union semantics of a single name. Does no I/O. Invariant: layers are asked from the top, and no further than
//! the first that settles the answer.

use crate::layer::{DirMarks, Entry, LayerId};
use crate::sys::stat::Stat;

/// One layer's share of a visible directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirPart {
    /// The layer.
    pub layer: LayerId,
    /// The attributes of its directory.
    pub stat: Stat,
    /// The marks of its directory.
    pub marks: DirMarks,
}

/// What the UNION shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// The name does not exist.
    Nothing,
    /// Anything but a directory, from this layer.
    Leaf {
        /// The layer.
        on: LayerId,
        /// Its attributes there.
        stat: Stat,
    },
    /// A directory, merged from these layers, topmost first; never empty.
    Dir(Vec<DirPart>),
}

/// Resolves one name. An error of a layer is an error of the name: guessing could show what was deleted.
pub fn resolve<E>(top_first: impl IntoIterator<Item = Result<(LayerId, Entry), E>>) -> Result<Visible, E> {
    let mut merged: Vec<DirPart> = Vec::new();
    for said in top_first {
        let (layer, entry) = said?;
        match entry {
            Entry::Absent => {}
            Entry::Whiteout => break,
            Entry::Leaf(stat) if merged.is_empty() => return Ok(Visible::Leaf { on: layer, stat }),
            // A file under a directory of the same name is hidden, and hides what is below it.
            Entry::Leaf(_) => break,
            Entry::Dir { stat, marks } => {
                merged.push(DirPart { layer, stat, marks });
                if marks.opaque {
                    break;
                }
            }
        }
    }
    Ok(match merged.is_empty() {
        true => Visible::Nothing,
        false => Visible::Dir(merged),
    })
}

/// What the upper layer says of a name, and what would show without it: who takes a name away or moves it needs both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The upper layer alone.
    pub upper: Entry,
    /// The lower layers alone.
    pub below: Visible,
}

impl Seen {
    /// Whether the upper layer has a file of this name.
    pub fn in_upper(&self) -> bool {
        matches!(self.upper, Entry::Leaf(_) | Entry::Dir { .. })
    }

    /// Whether a lower layer would show the name.
    pub fn is_below(&self) -> bool {
        self.below != Visible::Nothing
    }

    /// What the union shows.
    pub fn visible(&self) -> Visible {
        match self.upper {
            Entry::Absent => self.below.clone(),
            Entry::Whiteout => Visible::Nothing,
            Entry::Leaf(stat) => Visible::Leaf { on: LayerId::UPPER, stat },
            Entry::Dir { stat, marks } => {
                let mut parts = vec![DirPart { layer: LayerId::UPPER, stat, marks }];
                match &self.below {
                    Visible::Dir(lower) if !marks.opaque => parts.extend(lower),
                    _ => {}
                }
                Visible::Dir(parts)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn stat(mode: u32) -> Stat {
        let zero = Default::default();
        Stat {
            dev: 1,
            ino: 1,
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: zero,
        }
    }

    fn dir(opaque: bool) -> Entry {
        Entry::Dir { stat: stat(libc::S_IFDIR | 0o755), marks: DirMarks { opaque, xattr_whiteouts: false } }
    }

    fn leaf() -> Entry {
        Entry::Leaf(stat(libc::S_IFREG | 0o644))
    }

    fn shown(entries: &[Entry]) -> String {
        let said = entries.iter().enumerate().map(|(i, entry)| Ok::<_, Infallible>((LayerId(i as u16), *entry)));
        match resolve(said) {
            Ok(Visible::Nothing) => "nothing".to_owned(),
            Ok(Visible::Leaf { on, .. }) => format!("leaf {}", on.0),
            Ok(Visible::Dir(parts)) => {
                format!("dir {}", parts.iter().map(|part| part.layer.0.to_string()).collect::<Vec<_>>().join(" "))
            }
            Err(never) => match never {},
        }
    }

    #[test]
    fn the_topmost_leaf_shows() {
        assert_eq!(shown(&[Entry::Absent, leaf(), leaf()]), "leaf 1");
        assert_eq!(shown(&[leaf(), dir(false)]), "leaf 0");
    }

    #[test]
    fn a_whiteout_hides_everything_below() {
        assert_eq!(shown(&[Entry::Whiteout, leaf()]), "nothing");
        assert_eq!(shown(&[Entry::Absent, Entry::Whiteout, dir(false)]), "nothing");
        assert_eq!(shown(&[dir(false), Entry::Whiteout, dir(false)]), "dir 0");
    }

    #[test]
    fn directories_merge_down_to_an_opaque_one_or_a_leaf() {
        assert_eq!(shown(&[dir(false), Entry::Absent, dir(false)]), "dir 0 2");
        assert_eq!(shown(&[dir(false), dir(true), dir(false)]), "dir 0 1");
        assert_eq!(shown(&[dir(false), leaf(), dir(false)]), "dir 0");
    }

    #[test]
    fn no_layer_shows_nothing() {
        assert_eq!(shown(&[]), "nothing");
        assert_eq!(shown(&[Entry::Absent]), "nothing");
    }

    #[test]
    fn layers_below_the_answer_are_not_asked() {
        let entries = [leaf(), leaf()];
        let mut asked = 0;
        let said = entries.iter().map(|entry| {
            asked += 1;
            Ok::<_, Infallible>((LayerId(0), *entry))
        });
        assert!(matches!(resolve(said), Ok(Visible::Leaf { .. })));
        assert_eq!(asked, 1);
    }

    #[test]
    fn seeing_two_halves_is_seeing_the_whole() {
        let file = Entry::Leaf(stat(libc::S_IFREG));
        let dir = |opaque| Entry::Dir { stat: stat(libc::S_IFDIR), marks: DirMarks { opaque, xattr_whiteouts: false } };
        let answers = [Entry::Absent, Entry::Whiteout, file, dir(false), dir(true)];
        let said = |layers: &[(u16, Entry)]| {
            let layers: Vec<Result<_, Infallible>> =
                layers.iter().map(|(id, entry)| Ok((LayerId(*id), *entry))).collect();
            resolve(layers).expect("cannot fail")
        };
        for upper in answers {
            for first in answers {
                for second in answers {
                    let seen = Seen { upper, below: said(&[(1, first), (2, second)]) };
                    assert_eq!(seen.visible(), said(&[(0, upper), (1, first), (2, second)]));
                    assert_eq!(seen.is_below(), said(&[(1, first), (2, second)]) != Visible::Nothing);
                }
            }
        }
    }
}
