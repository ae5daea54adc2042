//! The rules of the house that a compiler does not check, one test a rule. A failure names file, line and the way out.
//!
//! Works on text: comments and literals are told apart from code first, the rest is words and braces.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 80;

/// Longer than allowed, with the exact length: `file` or `file::function`. An entry may shrink and go, never grow.
const LONG: &[(&str, usize)] = &[];

/// The modules of each package, leftmost first: each may import itself and what stands to its right.
const ORDERS: [(&str, &[&str]); 2] = [
    ("fs/src/", &["main", "lib", "fuse", "options", "union", "index", "layer", "sys", "error"]),
    (
        "snapshotter/src/",
        &[
            "main",
            "commands",
            "lib",
            "terminal",
            "host",
            "service",
            "snapshotter",
            "image",
            "mount",
            "store",
            "snapshot",
            "digest",
            "sys",
            "error",
        ],
    ),
];

/// A Rust file, split into what the compiler reads and what only we read. Both keep the line structure of the file.
struct Source {
    path: String,
    text: String,
    code: String,
    comments: String,
}

#[test]
fn unsafe_stays_in_sys() {
    let outside = |source: &&Source| !source.path.split('/').any(|part| part == "sys");
    let found = sources().iter().filter(outside).flat_map(|source| word_lines(source, "unsafe")).collect();
    report(found, "wrap the call in a function of a `sys` module, with a SAFETY comment and its man page");
}

#[test]
fn fuser_stays_in_fuse() {
    let outside = |source: &&Source| in_product(source) && !source.path.starts_with("fs/src/fuse/");
    let found = sources().iter().filter(outside).flat_map(|source| word_lines(source, "fuser")).collect();
    report(found, "speak of it in the union's own types, and convert in fs/src/fuse");
}

#[test]
fn tonic_stays_in_service() {
    let outside = |source: &&Source| in_product(source) && !source.path.starts_with("snapshotter/src/service/");
    let found = sources().iter().filter(outside).flat_map(|source| word_lines(source, "tonic")).collect();
    report(found, "keep gRPC in snapshotter/src/service, and give it plain types");
}

#[test]
fn packages_point_downwards() {
    let mut found = Vec::new();
    for (dir, above) in
        [("fs/src/", &["lamina_snapshotter", "lamina_runtime"][..]), ("snapshotter/src/", &["lamina_runtime"])]
    {
        for source in sources().iter().filter(|source| source.path.starts_with(dir)) {
            found.extend(above.iter().flat_map(|package| word_lines(source, package)));
        }
    }
    report(found, "the order is runtime > snapshotter > fs: move the item down, or pass it in");
}

#[test]
fn imports_point_rightwards() {
    let mut found = Vec::new();
    for source in sources() {
        let order = |(dir, order): &(&str, &'static [&'static str])| {
            source.path.strip_prefix(dir).map(|inside| (inside.to_owned(), *order))
        };
        let Some((inside, order)) = ORDERS.iter().find_map(order) else { continue };
        let own = inside.split('/').next().unwrap_or(&inside).trim_end_matches(".rs");
        let rank = |module: &str| order.iter().position(|other| *other == module);
        for (line, module) in crate_imports(&source.code) {
            if let (Some(from), Some(to)) = (rank(own), rank(&module))
                && to < from
            {
                found.push(format!("{}:{line}: `{own}` imports `{module}`", source.path));
            }
        }
        for line in lines_with(&source.code, "super::super::") {
            found.push(format!("{}:{line}: `super::super` hides where it points; write `crate::`", source.path));
        }
    }
    let orders: Vec<String> = ORDERS.iter().map(|(dir, order)| format!("{dir} {}", order.join(" > "))).collect();
    report(found, &format!("the order is {}: move the item to the right, or pass it in", orders.join("; ")));
}

#[test]
fn the_runtime_points_at_sys() {
    let mut found = Vec::new();
    for source in sources() {
        let below = source.path.starts_with("runtime/src/sys/");
        let inside = source.path.starts_with("runtime/src/oci/");
        let beside = source.path.starts_with("runtime/src/container/");
        let leftwards =
            |module: &str| below && ["oci", "container"].contains(&module) || inside && module == "container";
        let imports = crate_imports(&source.code).into_iter().filter(|(_, module)| leftwards(module));
        found.extend(imports.map(|(line, module)| format!("{}:{line}: imports `{module}`", source.path)));
        found.extend(word_lines(&source, "clap").into_iter().filter(|_| below || inside || beside));
    }
    report(found, "the order is bin > container > oci > sys: pass it in, and keep command lines in runtime/src/bin");
}

#[test]
fn every_module_says_what_it_owns() {
    let mut found = Vec::new();
    for source in sources() {
        let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            found.push(format!("{}:1: no `//!`", source.path));
        }
    }
    report(found, "begin the file with `//!`: what it owns, what it must not know, its one invariant");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX", "HACK"];
    let mut found = Vec::new();
    for source in sources() {
        for (at, comment) in source.comments.lines().enumerate() {
            if marks.iter().any(|mark| has_word(comment, mark)) || is_code(comment) {
                found.push(format!("{}:{}: {}", source.path, at + 1, comment.trim()));
            }
        }
    }
    report(found, "do it, open an issue, or delete it; history remembers the code");
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let document = fs::read_to_string(root().join("docs/semantics.md")).expect("docs/semantics.md is read");
    let tests = test_names();
    let (mut found, mut promises, mut inside) = (Vec::new(), 0, false);
    for (at, line) in document.lines().enumerate() {
        if !line.starts_with('|') || line.starts_with("| Promise |") {
            inside = line.starts_with('|');
            continue;
        }
        if !inside || line.starts_with("|--") {
            continue;
        }
        promises += 1;
        let shown_by = line.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            found.push(format!("docs/semantics.md:{}: a promise without a test", at + 1));
        }
        for name in names.iter().filter(|name| !tests.contains(**name)) {
            found.push(format!("docs/semantics.md:{}: no test is called `{name}`", at + 1));
        }
    }
    assert!(promises > 0, "docs/semantics.md: no table begins with `| Promise |`");
    report(found, "write the test, or correct its name in the last column");
}

#[test]
fn files_and_functions_stay_short() {
    let mut long = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push((source.path.clone(), lines, 1));
        }
        for (name, line, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES_MAX {
                long.push((format!("{}::{name}", source.path), lines, line));
            }
        }
    }
    let mut found = Vec::new();
    for (name, lines, line) in &long {
        match LONG.iter().find(|(listed, _)| listed == name) {
            Some((_, listed)) if listed == lines => {}
            Some((_, listed)) => found.push(format!("{name} (line {line}): {lines} lines, listed with {listed}")),
            None => found.push(format!("{name} (line {line}): {lines} lines")),
        }
    }
    for (listed, _) in LONG.iter().filter(|(listed, _)| !long.iter().any(|(name, ..)| name == listed)) {
        found.push(format!("{listed}: short enough now; delete it from LONG"));
    }
    let way_out = format!(
        "split where a name is obvious: {FILE_LINES_MAX} lines a file, {FUNCTION_LINES_MAX} a function; or lower its entry in LONG"
    );
    report(found, &way_out);
}

#[test]
fn literals_and_comments_are_not_code() {
    let source = Source::parse(
        "x.rs".into(),
        "let a = \"unsafe { // no\"; // unsafe\nlet b = 'u'; /* { */ let c = r#\"\"}\"#;".into(),
    );
    assert_eq!(word_lines(&source, "unsafe").len(), 0);
    assert_eq!(source.code.matches(['{', '}']).count(), 0);
    assert_eq!(source.comments.lines().next().map(str::trim), Some("// unsafe"));
}

#[test]
fn imports_are_found_in_groups() {
    let code = "use crate::{layer::Upper, fuse::{driver, errno},\n  sys};\nlet x = crate::union::Union::new();";
    let modules: Vec<(usize, String)> = crate_imports(code);
    let expected = [(1, "layer"), (1, "fuse"), (2, "sys"), (3, "union")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(modules, expected);
}

fn report(found: Vec<impl Display>, way_out: &str) {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\nway out: {way_out}\n", lines.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether a file is part of what we ship: tests, benches and fuzz may name any crate.
fn in_product(source: &Source) -> bool {
    ["fs/src/", "snapshotter/src/", "runtime/src/"].iter().any(|dir| source.path.starts_with(dir))
}

/// Every Rust file of the project.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the project is read") {
            let path = entry.expect("an entry is read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                dirs.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source file is read");
                let relative =
                    path.strip_prefix(root()).expect("it lies below the root").to_string_lossy().into_owned();
                sources.push(Source::parse(relative, text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// What the splitter is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Literal,
    RawLiteral { hashes: usize },
}

impl Source {
    fn parse(path: String, text: String) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
        let (mut part, mut at) = (Part::Code, 0);
        while at < characters.len() {
            let (next, length) = step(part, &characters[at..], at.checked_sub(1).map(|before| characters[before]));
            for character in &characters[at..at + length] {
                let comment = matches!(part, Part::LineComment | Part::BlockComment { .. })
                    || matches!(next, Part::LineComment | Part::BlockComment { .. });
                let is_code = part == Part::Code && next == Part::Code && length == 1;
                let blank = if *character == '\n' { '\n' } else { ' ' };
                code.push(if is_code { *character } else { blank });
                comments.push(if comment { *character } else { blank });
            }
            (part, at) = (next, at + length);
        }
        Source { path, text, code, comments }
    }
}

/// What follows, and how many characters belong to the step.
fn step(part: Part, rest: &[char], before: Option<char>) -> (Part, usize) {
    let starts = |text: &str| text.chars().enumerate().all(|(at, character)| rest.get(at) == Some(&character));
    match part {
        Part::Code if starts("//") => (Part::LineComment, 2),
        Part::Code if starts("/*") => (Part::BlockComment { depth: 1 }, 2),
        Part::Code if starts("\"") => (Part::Literal, 1),
        Part::Code if starts("r") && !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') => {
            let hashes = rest[1..].iter().take_while(|character| **character == '#').count();
            if rest.get(1 + hashes) == Some(&'"') { (Part::RawLiteral { hashes }, 2 + hashes) } else { (Part::Code, 1) }
        }
        // A character literal, not a lifetime: 'x' or '\...'. Skipped whole, for it may hold a quote or a brace.
        Part::Code if starts("'\\") => {
            let end = rest.iter().skip(3).position(|character| *character == '\'').map_or(1, |end| end + 4);
            (Part::Code, end)
        }
        Part::Code if starts("'") && rest.get(2) == Some(&'\'') => (Part::Code, 3),
        Part::LineComment if starts("\n") => (Part::Code, 1),
        Part::BlockComment { depth } if starts("/*") => (Part::BlockComment { depth: depth + 1 }, 2),
        Part::BlockComment { depth: 1 } if starts("*/") => (Part::Code, 2),
        Part::BlockComment { depth } if starts("*/") => (Part::BlockComment { depth: depth - 1 }, 2),
        Part::Literal if starts("\\") => (Part::Literal, rest.len().min(2)),
        Part::Literal if starts("\"") => (Part::Code, 1),
        Part::RawLiteral { hashes } if starts(&format!("\"{}", "#".repeat(hashes))) => (Part::Code, 1 + hashes),
        part => (part, 1),
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_word)
            && !line[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

fn word_lines(source: &Source, word: &str) -> Vec<String> {
    let hits = source.code.lines().enumerate().filter(|(_, line)| has_word(line, word));
    hits.map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim())).collect()
}

fn lines_with(code: &str, text: &str) -> Vec<usize> {
    code.lines().enumerate().filter(|(_, line)| line.contains(text)).map(|(at, _)| at + 1).collect()
}

/// Whether a `//` comment is a line of code that somebody switched off. Documentation may show code.
fn is_code(comment: &str) -> bool {
    let trimmed = comment.trim();
    let Some(text) = trimmed.strip_prefix("//").filter(|text| !text.starts_with(['/', '!'])) else { return false };
    let text = text.trim();
    let begins = ["let ", "fn ", "pub ", "use ", "mod ", "impl ", "#["].iter().any(|word| text.starts_with(word));
    text.ends_with(';') && (begins || text.contains('(') || text.contains('=')) || begins && text.ends_with('{')
}

/// The modules named right after `crate::`, with their lines; groups in braces are looked into.
fn crate_imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let (mut depth, mut begins) = (0, true);
        for (offset, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                _ if character.is_whitespace() => {}
                _ if begins && is_word(character) => {
                    let name: String = rest[offset..].chars().take_while(|character| is_word(*character)).collect();
                    found.push((code[..at + "crate::".len() + offset].matches('\n').count() + 1, name));
                    begins = false;
                }
                _ => {}
            }
            if depth <= 0 && !begins || depth < 0 {
                break;
            }
        }
    }
    found
}

/// Name, first line and length of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|character| is_word(*character)).collect();
        if name.is_empty() || code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let (mut depth, mut square) = (0_usize, 0_i32);
        for (offset, character) in code[at..].char_indices() {
            match character {
                '[' => square += 1,
                ']' => square -= 1,
                ';' if depth == 0 && square == 0 => break,
                '{' => depth += 1,
                '}' if depth == 1 => {
                    let first = code[..at].matches('\n').count() + 1;
                    found.push((name, first, code[at..at + offset].matches('\n').count() + 1));
                    break;
                }
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    found
}

/// The names of all functions that follow `#[test]`.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources() {
        let mut marked = false;
        for line in source.code.lines() {
            marked |= line.contains("#[test]");
            if let (true, Some((_, rest))) = (marked, line.split_once("fn ")) {
                names.insert(rest.chars().take_while(|character| is_word(*character)).collect());
                marked = false;
            }
        }
    }
    names
}
