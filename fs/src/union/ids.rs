//! Whose ids a user sees, and whose ids the layers hold.
//!
//! Owns `uidmapping`, `gidmapping` and the squash options. Invariant: with no mapping every id is itself.

/// `host:to:len[:host:to:len...]`: ids of the layers on the left, ids shown on the right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    host: u32,
    shown: u32,
    length: u32,
}

/// Why a mapping does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum IdMapError {
    #[error("mapping \"{text}\" is not HOST:SHOWN:LENGTH repeated: it has {count} numbers")]
    Count { text: String, count: usize },
    #[error("\"{word}\" in mapping \"{text}\" is not a number from 0 to 4294967295")]
    Number { text: String, word: String },
    #[error("a range of mapping \"{text}\" is empty or goes past 4294967295")]
    Length { text: String },
}

impl IdMap {
    /// Every id is itself.
    pub fn identity() -> Self {
        IdMap::default()
    }

    /// Reads the option's value. A colon may stand before the first range: Podman and Buildah write one before each.
    pub fn parse(text: &str) -> Result<Self, IdMapError> {
        let words: Vec<&str> = text.strip_prefix(':').unwrap_or(text).split(':').collect();
        if !words.len().is_multiple_of(3) {
            return Err(IdMapError::Count { text: text.to_owned(), count: words.len() });
        }
        let number = |word: &str| {
            word.parse::<u32>().map_err(|_| IdMapError::Number { text: text.to_owned(), word: word.to_owned() })
        };
        let mut ranges = Vec::new();
        for triple in words.chunks_exact(3) {
            let range = Range { host: number(triple[0])?, shown: number(triple[1])?, length: number(triple[2])? };
            let fits = |start: u32| range.length > 0 && start.checked_add(range.length - 1).is_some();
            if !fits(range.host) || !fits(range.shown) {
                return Err(IdMapError::Length { text: text.to_owned() });
            }
            ranges.push(range);
        }
        Ok(IdMap { ranges })
    }

    /// The shown id of an id of the layers; `None` where no range holds it.
    pub fn shown(&self, host: u32) -> Option<u32> {
        self.translate(host, |range| (range.host, range.shown))
    }

    /// The id of the layers for a shown one; `None` where no range holds it.
    pub fn host(&self, shown: u32) -> Option<u32> {
        self.translate(shown, |range| (range.shown, range.host))
    }

    fn translate(&self, id: u32, sides: impl Fn(&Range) -> (u32, u32)) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(id);
        }
        self.ranges.iter().find_map(|range| {
            let (from, to) = sides(range);
            let offset = id.checked_sub(from).filter(|offset| *offset < range.length)?;
            Some(to + offset)
        })
    }
}

/// One id shown for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Squash {
    /// Every file shows its own.
    #[default]
    None,
    /// Every file shows these; changing owners is accepted and has no effect.
    To {
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    },
}

/// How ids are shown and stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdPolicy {
    /// Owners.
    pub uids: IdMap,
    /// Groups.
    pub gids: IdMap,
    /// One for all; goes before the maps.
    pub squash: Squash,
}

/// Shown for ids that no range holds, unless the kernel says otherwise (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

impl IdPolicy {
    /// The owner and group that a user sees.
    pub fn shown(&self, uid: u32, gid: u32) -> (u32, u32) {
        let (squash_uid, squash_gid) = self.squashed();
        (
            squash_uid.unwrap_or_else(|| self.uids.shown(uid).unwrap_or(OVERFLOW_ID)),
            squash_gid.unwrap_or_else(|| self.gids.shown(gid).unwrap_or(OVERFLOW_ID)),
        )
    }

    /// The owner that a layer is to hold; `None` where it keeps its own. `Err` where the id has no place.
    pub fn stored_uid(&self, uid: u32) -> Result<Option<u32>, Unmapped> {
        match self.squashed().0 {
            Some(_) => Ok(None),
            None => self.uids.host(uid).map(Some).ok_or(Unmapped),
        }
    }

    /// The group that a layer is to hold; see `stored_uid`.
    pub fn stored_gid(&self, gid: u32) -> Result<Option<u32>, Unmapped> {
        match self.squashed().1 {
            Some(_) => Ok(None),
            None => self.gids.host(gid).map(Some).ok_or(Unmapped),
        }
    }

    fn squashed(&self) -> (Option<u32>, Option<u32>) {
        match self.squash {
            Squash::None => (None, None),
            Squash::To { uid, gid } => (uid, gid),
        }
    }
}

/// The id is outside every range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmapped;

impl From<Unmapped> for crate::error::Error {
    fn from(_: Unmapped) -> Self {
        crate::error::Error::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_both_ways() {
        let map = IdMap::parse("1000:0:1:100000:1:65535").expect("parses");
        assert_eq!(map.shown(1000), Some(0));
        assert_eq!(map.shown(100_004), Some(5));
        assert_eq!(map.shown(7), None);
        assert_eq!(map.host(0), Some(1000));
        assert_eq!(map.host(65535), Some(165_534));
        assert_eq!(map.host(65536), None);
    }

    /// `podman run --userns keep-id` with a mount program: containers-storage writes the colon before each range.
    #[test]
    fn a_colon_before_the_first_range_is_podmans() {
        let podmans = IdMap::parse(":0:1:1000:1000:0:1");
        assert_eq!(podmans, IdMap::parse("0:1:1000:1000:0:1"));
        assert_eq!(podmans.expect("parses").shown(1000), Some(0));
    }

    #[test]
    fn broken_mappings_are_refused() {
        for text in ["", ":", "::0:0:1", "0:0:1:", "0:0", "0:0:0", "a:0:1", "0:0:1:2", "4294967295:0:2", "-1:0:1"] {
            assert!(IdMap::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn squash_hides_owners_and_swallows_changes() {
        let ids = IdPolicy { squash: Squash::To { uid: Some(0), gid: None }, ..IdPolicy::default() };
        assert_eq!(ids.shown(7, 8), (0, 8));
        assert_eq!(ids.stored_uid(5), Ok(None));
        assert_eq!(ids.stored_gid(5), Ok(Some(5)));
    }
}
