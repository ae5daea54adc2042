//! The filter language of containerd's List.
//!
//! Owns its grammar and what a match is. Invariant: parsing takes any text and never panics.
//!
//! ```text
//! filter   = selector { "," selector }           all of them
//! selector = path [ ("==" | "!=" | "~=") value ]   without an operator: the field is there
//! path     = field { "." field }
//! field    = word | quoted                       value = word without "," and spaces | quoted
//! ```
//! Quotes are Go's; after `~=`, a regular expression, also `/.../` and `|...|`.

use super::Snapshot;
use crate::error::{Error, Result};
use regex::Regex;
use std::iter::Peekable;
use std::str::Chars;

/// What a caller wants listed: any of these filters, or everything if there are none.
#[derive(Debug, Default)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses each filter.
    ///
    /// # Errors
    /// [`Error::BadFilter`].
    pub fn parse<T: AsRef<str>>(filters: &[T]) -> Result<Filters> {
        let parse = |filter: &T| {
            let filter = filter.as_ref();
            Parser { rest: filter.chars().peekable() }
                .selectors()
                .map_err(|cause| Error::BadFilter { filter: filter.to_owned(), cause: cause.to_owned() })
        };
        filters.iter().map(parse).collect::<Result<_>>().map(Filters)
    }

    /// Whether the snapshot is wanted.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        self.0.is_empty() || self.0.iter().any(|selectors| selectors.iter().all(|selector| selector.matches(snapshot)))
    }
}

impl Selector {
    fn matches(&self, snapshot: &Snapshot) -> bool {
        let value = field(snapshot, &self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(value)),
        }
    }
}

fn field<'a>(snapshot: &'a Snapshot, path: &[String]) -> Option<&'a str> {
    match path.first()?.as_str() {
        "name" => Some(&snapshot.key),
        "parent" => Some(&snapshot.parent_key),
        "kind" => Some(snapshot.kind.as_str()),
        "labels" => snapshot.labels.get(&path[1..].join(".")).map(String::as_str),
        _ => None,
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

type Parsed<T> = std::result::Result<T, &'static str>;

impl Parser<'_> {
    /// An empty filter selects everything.
    fn selectors(mut self) -> Parsed<Vec<Selector>> {
        self.spaces();
        if self.rest.peek().is_none() {
            return Ok(Vec::new());
        }
        let mut selectors = vec![self.selector()?];
        loop {
            self.spaces();
            match self.rest.next() {
                None => return Ok(selectors),
                Some(',') => selectors.push(self.selector()?),
                Some(_) => return Err("a comma or the end is expected after a selector"),
            }
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        let mut path = vec![self.field()?];
        while self.rest.next_if_eq(&'.').is_some() {
            path.push(self.field()?);
        }
        self.spaces();
        let Some(first) = self.rest.next_if(|character| "=!~".contains(*character)) else {
            return Ok(Selector { path, test: Test::Present });
        };
        if self.rest.next() != Some('=') {
            return Err("the operators are ==, != and ~=");
        }
        self.spaces();
        let test = match first {
            '=' => Test::Equal(self.value("\"")?),
            '!' => Test::NotEqual(self.value("\"")?),
            _ => {
                let pattern = self.value("\"/|")?;
                Test::Matches(Regex::new(&pattern).map_err(|_| "the regular expression is malformed or too large")?)
            }
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Parsed<String> {
        self.spaces();
        if let Some(quote) = self.rest.next_if_eq(&'"') {
            return self.quoted(quote);
        }
        let word = self.word(|character| character.is_alphanumeric() || character == '_');
        if word.is_empty() { Err("a field is expected: a word, or one in quotes") } else { Ok(word) }
    }

    fn value(&mut self, quotes: &str) -> Parsed<String> {
        if let Some(quote) = self.rest.next_if(|character| quotes.contains(*character)) {
            return self.quoted(quote);
        }
        let word = self.word(|character| character != ',' && !character.is_whitespace());
        if word.is_empty() { Err("a value is expected after the operator") } else { Ok(word) }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some(character) = self.rest.next_if(|character| belongs(*character)) {
            word.push(character);
        }
        word
    }

    fn spaces(&mut self) {
        while self.rest.next_if(|character| character.is_whitespace()).is_some() {}
    }

    /// The rest of a quoted text, whose first quote is consumed.
    fn quoted(&mut self, quote: char) -> Parsed<String> {
        let mut bytes = Vec::new();
        loop {
            let character = self.rest.next().ok_or("a quote does not end")?;
            if character == quote {
                return String::from_utf8(bytes).map_err(|_| "a quoted text is not UTF-8");
            }
            if character != '\\' {
                push(&mut bytes, character);
                continue;
            }
            let escaped = self.rest.next().ok_or("a quote does not end")?;
            match escaped {
                _ if escaped == quote => push(&mut bytes, quote),
                // In a pattern, any other backslash belongs to the pattern.
                _ if quote != '"' => {
                    bytes.push(b'\\');
                    push(&mut bytes, escaped);
                }
                '\\' | '\'' => push(&mut bytes, escaped),
                'a' => bytes.push(7),
                'b' => bytes.push(8),
                'f' => bytes.push(12),
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                'v' => bytes.push(11),
                'x' => bytes.push(u8::try_from(self.number(16, 2, None)?).unwrap_or_default()),
                'u' => push(&mut bytes, char::from_u32(self.number(16, 4, None)?).ok_or("\\u names no character")?),
                'U' => push(&mut bytes, char::from_u32(self.number(16, 8, None)?).ok_or("\\U names no character")?),
                '0'..='7' => {
                    let byte = self.number(8, 2, escaped.to_digit(8))?;
                    bytes.push(u8::try_from(byte).map_err(|_| "an octal escape is larger than a byte")?);
                }
                _ => return Err("an unknown escape stands in quotes"),
            }
        }
    }

    fn number(&mut self, radix: u32, digits: usize, first: Option<u32>) -> Parsed<u32> {
        let mut number = first.unwrap_or_default();
        for _ in 0..digits {
            let digit = self.rest.next().and_then(|character| character.to_digit(radix));
            number = number.wrapping_mul(radix) + digit.ok_or("an escape has too few digits")?;
        }
        Ok(number)
    }
}

fn push(bytes: &mut Vec<u8>, character: char) {
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Kind, Labels, Space};
    use std::time::SystemTime;

    fn snapshot() -> Snapshot {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Snapshot {
            id: 1,
            content: 1,
            space: Space::lamina(),
            key: "default/1/name".into(),
            kind: Kind::Committed,
            parent: Some(2),
            parent_key: "default/2/base, \"quoted\"".into(),
            labels: Labels::from([label("containerd.io/snapshot.ref", "sha256:ab"), label("a.b", "x")]),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            usage: None,
            diff_id: None,
            chain_id: None,
        }
    }

    fn matches(filters: &[&str]) -> bool {
        Filters::parse(filters).unwrap().matches(&snapshot())
    }

    #[test]
    fn every_operator_and_field_selects() {
        for filter in [
            "",
            "name==default/1/name",
            "kind==committed",
            "kind!=active",
            r#"labels."containerd.io/snapshot.ref"==sha256:ab,parent=="default/2/base, \"quoted\"""#,
            "labels.a.b==x",
            "labels.\"a.b\"",
            "parent",
            "labels.none!=x",
            "name~=/^default\\/[0-9]+/",
            "name~=|1/name$|",
            "name ~= \"name\" , kind == committed",
            "parent!=\"\"",
            r#"labels.a.b=="\x78""#,
        ] {
            assert!(matches(&[filter]), "{filter}");
        }
        for filter in ["name==x", "labels.none", "unknown", "kind==committed,name==x", "labels.none~=.*", "unknown==x"]
        {
            assert!(!matches(&[filter]), "{filter}");
        }
    }

    #[test]
    fn filters_are_alternatives() {
        assert!(matches(&[]));
        assert!(matches(&["name==x", "kind==committed"]));
        assert!(!matches(&["name==x", "kind==view"]));
    }

    #[test]
    fn malformed_filters_are_refused() {
        for filter in [
            "=",
            "name=",
            "name=x",
            "name==",
            "name==a b",
            ",",
            "name,",
            "name==\"a",
            "name~=(",
            "a..b",
            "name==\"\\q\"",
            "name==\"\\x1\"",
            "\"",
            "~=x",
            "name==/a/b\" c",
        ] {
            assert!(matches!(Filters::parse(&[filter]), Err(Error::BadFilter { .. })), "{filter}");
        }
    }
}
